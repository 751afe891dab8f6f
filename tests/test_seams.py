"""Where one clause of a reply ends and the next begins: no step, no gap, and no running on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agents import Agent
from pipeline.audio import AudioFormat, Pcm
from pipeline.events import ReplyAudioStarted, ReplyClauseStarted, ReplyFinished
from pipeline.playout import Playout, PlayoutListener
from pipeline.speech_queue import AUDIBLE, EDGE_MS, SpeechQueue
from pipeline.text import PAUSE_MS, SENTENCE_PAUSE_MS, ClauseSplitter
from pipeline.tts import espeak

from .clicks import LOUD, TONE_HZ, clicks, swelling_tone
from .fakes import FakeLlm, FakeStt, FakeTts, engines
from .script import play
from .virtual_time import run

RATE = 24_000

Clause = tuple[str, Sequence[Pcm]]
"""Its words, and its sound in pieces."""


def _spoken(clauses: Sequence[Clause], rate_hz: int = RATE, longest_ms: float = SENTENCE_PAUSE_MS) -> tuple[Pcm, float]:
    """Play a reply; return what left from its first sample on, and after how many ms it was drained."""

    async def main() -> tuple[Pcm, float]:
        playout, loop = Playout(AudioFormat(RATE)), asyncio.get_running_loop()
        drained_s: list[float] = []
        playout.listener = PlayoutListener(drained=lambda w: drained_s.append(loop.time()))
        writer = playout.open(1, rate_hz=rate_hz)
        for text, pieces in clauses:
            writer.begin(text, longest_ms)
            for piece in pieces:
                await writer.write(piece)
            writer.end()
        writer.finish()
        begin_s, frames = loop.time(), list[Pcm]()
        while not drained_s:
            frames.append((await playout.next_frame()).pcm)
        return np.concatenate(frames), (drained_s[0] - begin_s) * 1000

    return run(main())


def _tone(samples: int, rate_hz: int = RATE) -> Pcm:
    tone: Pcm = (LOUD * np.sin(2 * np.pi * TONE_HZ / rate_hz * np.arange(samples))).astype(np.int16)
    return tone


def _silent(ms: int) -> Pcm:
    return np.zeros(RATE * ms // 1000, np.int16)


def _pauses(pcm: Pcm, rate_hz: int = RATE, least_ms: int = 100) -> list[float]:
    """Return how long each silence within lasts, in ms; shorter ones are a word's own."""
    gaps = np.diff(np.flatnonzero(np.abs(pcm.astype(int)) >= AUDIBLE)) / rate_hz * 1000
    return [float(gap) for gap in gaps if gap >= least_ms]


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000])
@pytest.mark.parametrize("piece_ms", [20, 61, 1_000])
def test_a_voice_that_goes_on_from_clause_to_clause_is_one_stream(rate_hz: int, piece_ms: int) -> None:
    tone = swelling_tone(rate_hz * 11 // 10, rate_hz)
    piece = rate_hz * piece_ms // 1000
    clauses: list[Clause] = []
    for i, part in enumerate(np.array_split(tone, [rate_hz // 3, rate_hz * 5 // 7])):
        clauses.append((f"clause {i}.", [part[at : at + piece] for at in range(0, len(part), piece)]))
    heard, _ = _spoken(clauses, rate_hz)
    assert not clicks(heard)
    assert abs(int(np.flatnonzero(heard)[-1]) - len(tone) * RATE / rate_hz) < 10, "no sample more or less"


TEXT = "When you are quite ready, we go. Is it true? I do not know; maybe it is. Then we shall see!"


def test_a_reply_in_clauses_pauses_as_the_voice_does_in_one_text() -> None:
    tts = espeak.create({})

    async def speech(text: str) -> list[Pcm]:
        return [chunk async for chunk in tts.synthesize(text, None, "en", 1.0)]

    async def main() -> tuple[list[Pcm], list[Clause]]:
        splitter = ClauseSplitter()
        texts = [*splitter.push(TEXT), *splitter.flush()]
        assert len(texts) == 5
        return await speech(TEXT), [(text, await speech(text)) for text in texts]

    try:
        whole, clauses = asyncio.run(main())
    finally:
        tts.close()
    expected = _pauses(np.concatenate(whole), tts.rate_hz)
    heard, _ = _spoken(clauses, tts.rate_hz)
    assert len(expected) >= 5
    assert _pauses(heard) == pytest.approx(expected, abs=15)
    assert np.abs(heard[: int(np.flatnonzero(heard)[0]) + 1].astype(int)).max() < AUDIBLE, "it begins without a step"


def test_silence_at_the_edges_of_clauses_is_brought_within_bounds() -> None:
    sound = _tone(RATE // 5)
    clauses = [("one,", [sound, _silent(400)]), ("two.", [_silent(700), sound, _silent(200)])]
    assert _pauses(_spoken(clauses, longest_ms=PAUSE_MS)[0]) == pytest.approx([PAUSE_MS], abs=EDGE_MS + 1)
    clauses = [("one,", [sound, _silent(100)]), ("two.", [_silent(700), sound])]
    assert _pauses(_spoken(clauses, longest_ms=PAUSE_MS)[0]) == pytest.approx([PAUSE_MS], abs=1)
    clauses = [("one,", [sound, _silent(80)]), ("two.", [_silent(90), sound])]
    assert _pauses(_spoken(clauses, longest_ms=PAUSE_MS)[0]) == pytest.approx([170], abs=1), "the voice's own"
    clauses = [("one", [sound, _silent(900), sound])]
    assert _pauses(_spoken(clauses)[0]) == pytest.approx([900], abs=1), "within a clause the voice knows why"


def test_what_the_resampler_has_yet_to_give_is_still_the_clause_before() -> None:
    rate_hz = 16_000
    sound = np.full(rate_hz // 5, LOUD, np.int16)
    sound[-rate_hz // 500 :] = np.linspace(LOUD, 0, rate_hz // 500)
    clauses = [("one,", [sound]), ("two.", [np.zeros(rate_hz * 7 // 10, np.int16), sound])]
    assert _pauses(_spoken(clauses, rate_hz, longest_ms=PAUSE_MS)[0]) == pytest.approx([PAUSE_MS], abs=2)


def test_a_reply_is_over_with_its_last_sound() -> None:
    """Otherwise the caller's next word would count as an interruption."""
    sound = _tone(RATE // 5)
    heard, drained_ms = _spoken([("one.", [sound, _silent(300)]), ("two.", [sound, _silent(800)])])
    assert drained_ms == pytest.approx(200 + 300 + 200 + EDGE_MS, abs=20)
    assert _pauses(heard) == pytest.approx([300], abs=1)


def test_one_that_is_finished_late_is_over_at_once() -> None:
    async def main() -> None:
        playout, told = Playout(AudioFormat(RATE)), list[str]()
        playout.listener = PlayoutListener(drained=lambda w: told.append(w.heard()))
        writer = playout.open(1)
        writer.begin("one two.")
        await writer.write(np.concatenate([_tone(RATE // 5), _silent(500)]))
        writer.end()
        for _ in range(15):
            await playout.next_frame()
        assert not told and writer.heard() == "one two.", "its words were heard, and a part of the pause"
        writer.finish()
        assert told == ["one two."] and playout.writer is None

    run(main())


NOISE = np.random.default_rng(1).integers(-30, 31, RATE // 2).astype(np.int16) + np.int16(60)
"""Faint, and off zero: below -50 dBFS."""


@given(cuts=st.lists(st.integers(0, RATE), max_size=8))
def test_silence_before_the_first_sound_is_cut_however_the_sound_comes(cuts: list[int]) -> None:
    sound = np.concatenate([NOISE, _tone(RATE // 2)])
    queue = SpeechQueue(RATE)
    queue.begin("silence.", 600)
    queue.append(NOISE)
    queue.end()
    queue.begin("hello.", 600)
    for begin, end in pairwise([0, *sorted(cuts), len(sound)]):
        queue.append(sound[begin:end])
    heard = queue.peek(len(queue))
    audible = int(np.flatnonzero(np.abs(heard.astype(int)) >= AUDIBLE)[0])
    assert audible == RATE * EDGE_MS // 1000
    assert np.array_equal(heard, sound[-len(heard) :])


@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
def test_a_first_word_shorter_than_the_resampler_s_memory_is_trimmed_too(rate_hz: int) -> None:
    word = _tone(12, rate_hz)
    heard, _ = _spoken([("a", [np.zeros(rate_hz // 2, np.int16), word])], rate_hz)
    audible = int(np.flatnonzero(np.abs(heard.astype(int)) >= AUDIBLE)[0])
    assert audible <= RATE * EDGE_MS // 1000


def test_less_than_a_frame_of_a_clause_in_the_making_waits_for_the_rest() -> None:
    async def main() -> list[Pcm]:
        playout = Playout(AudioFormat(RATE))
        writer = playout.open(1)
        writer.begin("one.")
        await writer.write(np.full(700, LOUD, np.int16))
        writer.end()
        writer.begin("two.")
        await writer.write(np.full(100, LOUD, np.int16))
        frames = [(await playout.next_frame()).pcm for _ in range(4)]
        await writer.write(np.full(380, LOUD, np.int16))
        return [*frames, (await playout.next_frame()).pcm]

    assert [int(np.count_nonzero(pcm)) for pcm in run(main())] == [480, 220, 0, 0, 480]


def test_short_sentences_that_wait_are_spoken_and_shown_as_one() -> None:
    tts = FakeTts()
    llm = FakeLlm("Yes. I can. It is. So there you have all of it. No. Never.")
    played = play("#" * 30 + "." * 300, engines(FakeStt(), llm, tts))
    assert tts.calls == ["Yes.", "I can. It is.", "So there you have all of it.", "No. Never."]
    assert [event.text for event in played.all(ReplyClauseStarted)] == tts.calls
    assert [event.heard for event in played.all(ReplyFinished)] == [llm.text]


def test_nothing_waits_for_a_sentence_that_may_follow() -> None:
    tts = FakeTts()
    played = play("#" * 30 + "." * 300, engines(FakeStt(), FakeLlm("Yes. I can. It is.", per_word_s=0.3), tts))
    assert tts.calls == ["Yes.", "I can.", "It is."]
    assert played.at(ReplyClauseStarted) == played.at(ReplyAudioStarted)


class LingeringTts(FakeTts):
    """Falls silent for far too long behind whatever it says."""

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        yield np.concatenate([_tone(RATE // 5), _silent(900)])


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_the_longest_pause_follows_the_mark_and_the_tempo(speed: float) -> None:
    llm = FakeLlm("When you are quite ready, we go on and on. Then we stop and stay.")
    agent = Agent("a", "A", speed=speed)
    played = play("#" * 30 + "." * 300, engines(FakeStt(), llm, LingeringTts()), agent=agent)
    heard = np.concatenate([frame.pcm for _, frame in played.frames])
    assert _pauses(heard) == pytest.approx([PAUSE_MS / speed, SENTENCE_PAUSE_MS / speed], abs=1)
