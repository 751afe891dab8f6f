"""Playout and Writer in virtual time: pacing, revocation, holding, what was heard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from pipeline.audio import AudioFormat, AudioFrame, silence
from pipeline.gain import FADE_MS
from pipeline.playout import Playout, PlayoutListener
from pipeline.speech_queue import SpeechQueue
from pipeline.writer import Writer

from .virtual_time import VirtualTimeLoop, run

RATE = 24_000


def _loud(ms: int, level: int = 5_000) -> np.ndarray:
    return np.full(RATE * ms // 1000, level, np.int16)


async def _say(writer: Writer, text: str, ms: int) -> None:
    writer.begin(text)
    await writer.write(_loud(ms))
    writer.end()


def _play(act: Callable[[Playout], Awaitable[None]], seconds: float = 2.0) -> list[tuple[float, AudioFrame]]:
    """Pull frames for ``seconds`` while ``act`` runs."""

    async def main() -> list[tuple[float, AudioFrame]]:
        playout = Playout(AudioFormat(RATE))
        loop = asyncio.get_running_loop()
        start_s, frames = loop.time(), []
        actor = asyncio.ensure_future(act(playout))
        while loop.time() - start_s < seconds:
            frame = await playout.next_frame()
            frames.append((round((loop.time() - start_s) * 1000, 3), frame))
        await actor
        return frames

    return run(main())


def test_frames_come_every_20_ms_with_contiguous_pts_and_are_silent_without_a_writer() -> None:
    async def nothing(playout: Playout) -> None:
        await asyncio.sleep(0)

    frames = _play(nothing, 1.0)
    assert np.allclose(np.diff([ms for ms, _ in frames]), 20)
    assert [f.pts for _, f in frames] == [i * 480 for i in range(len(frames))]
    assert all(f.silent and not f.pcm.any() for _, f in frames)


def test_speech_leaves_the_moment_it_is_written() -> None:
    async def act(playout: Playout) -> None:
        await asyncio.sleep(0.1071)
        await _say(playout.open(1), "hello", 100)

    frames = _play(act, 0.5)
    speech = [(ms, f) for ms, f in frames if not f.silent]
    assert speech[0][0] == pytest.approx(107.1) and len(speech) == 5
    assert np.allclose(np.diff([ms for ms, _ in speech]), 20)
    assert frames[-1][0] % 20 == pytest.approx(0, abs=1e-6), "silence is back on the timeline"


def test_less_than_a_frame_leaves_the_moment_its_clause_is_complete() -> None:
    async def act(playout: Playout) -> None:
        writer = playout.open(1)
        writer.begin("ah")
        await writer.write(_loud(10))
        await asyncio.sleep(0.1071)
        writer.end()

    [(ms, frame)] = [(ms, frame) for ms, frame in _play(act, 0.5) if not frame.silent]
    assert ms == pytest.approx(107.1) and int((frame.pcm == 5_000).sum()) == 240


def test_clear_silences_the_next_frame_but_for_a_fade_of_5_ms() -> None:
    writers: list[Writer] = []

    async def act(playout: Playout) -> None:
        writers.append(playout.open(1))
        await _say(writers[0], "one two three four", 1000)
        await asyncio.sleep(0.505)
        assert playout.clear() is writers[0] and playout.clear() is None

    frames = _play(act, 1.0)
    after = [f for ms, f in frames if ms > 500]
    faded = after[0].pcm
    assert not after[0].silent and 0 < faded[0] < 5_000 and faded[119] == 0 and not faded[120:].any()
    assert np.all(np.diff(faded[:120].astype(int)) <= 0)
    assert all(f.silent for f in after[1:])
    assert writers[0].heard() == "one two" and writers[0].revoked


def test_writing_after_revocation_does_nothing() -> None:
    async def act(playout: Playout) -> None:
        old = playout.open(1)
        new = playout.open(2)
        await _say(old, "stale", 500)
        old.finish()
        old.release()
        assert old.revoked and playout.writer is new

    assert all(f.silent for _, f in _play(act, 0.5))


def test_a_held_writer_plays_nothing_until_released_and_pauses_without_losing_a_sample() -> None:
    async def act(playout: Playout) -> None:
        writer = playout.open(1, held=True)
        await _say(writer, "hello there", 400)
        writer.finish()
        await asyncio.sleep(0.3)
        writer.release()
        await asyncio.sleep(0.1)
        writer.hold()
        await asyncio.sleep(0.2)
        writer.release()

    frames = _play(act, 1.5)
    full = [ms for ms, f in frames if (f.pcm == 5_000).any()]
    assert min(full) == pytest.approx(300)
    fade_in = RATE * FADE_MS // 1000 - 1
    assert sum(int((f.pcm == 5_000).sum()) for _, f in frames) == RATE * 400 // 1000 - fade_in
    gap = [ms for ms, f in frames if f.silent and 400 < ms < 600]
    assert len(gap) >= 8


def test_the_clock_tells_start_clauses_and_end() -> None:
    told: list[tuple[str, object]] = []

    async def act(playout: Playout) -> None:
        playout.listener = PlayoutListener(
            lambda w: told.append(("start", w.reply)),
            lambda w, text: told.append(("clause", text)),
            lambda w: told.append(("drained", w.heard())),
        )
        writer = playout.open(7)
        await _say(writer, "one.", 200)
        await _say(writer, "two.", 200)
        writer.finish()

    _play(act, 1.0)
    assert told == [("start", 7), ("clause", "one."), ("clause", "two."), ("drained", "one. two.")]


def test_the_right_to_speak_comes_back_though_nobody_listens_to_the_clock() -> None:
    async def act(playout: Playout) -> None:
        writer = playout.open(1)
        await _say(writer, "one.", 100)
        writer.finish()
        await asyncio.sleep(0.2)
        assert playout.writer is None

    _play(act, 0.5)


def test_a_reply_without_sound_is_drained_when_it_is_finished() -> None:
    drained: list[int] = []

    async def act(playout: Playout) -> None:
        playout.listener = PlayoutListener(drained=lambda w: drained.append(w.reply))
        writer = playout.open(1, held=True)
        writer.finish()
        assert drained == []
        writer.release()

    _play(act, 0.1)
    assert drained == [1]


def test_leading_silence_is_trimmed_to_10_ms() -> None:
    async def act(playout: Playout) -> None:
        writer = playout.open(1)
        writer.begin("hi")
        await writer.write(np.zeros(RATE // 2, np.int16))
        await writer.write(np.concatenate([np.zeros(RATE // 2, np.int16), _loud(100)]))
        writer.end()

    first = next(f for _, f in _play(act, 0.5) if not f.silent)
    assert int(np.flatnonzero(first.pcm)[0]) == RATE // 100


def test_a_voice_of_another_rate_keeps_its_length() -> None:
    async def act(playout: Playout) -> None:
        writer = playout.open(1, rate_hz=22_050)
        writer.begin("hi")
        for _ in range(10):
            await writer.write(np.full(2205, 5_000, np.int16))
        writer.end()

    loud = sum(int((f.pcm > 2_500).sum()) for _, f in _play(act, 2.0))
    assert abs(loud - RATE) < 20


def test_a_starving_voice_makes_whole_frames() -> None:
    """Samples that do not fill a frame wait for the next ones: one gap instead of many clicks."""

    async def act(playout: Playout) -> None:
        writer = playout.open(1)
        writer.begin("slow voice")
        for _ in range(20):
            await writer.write(_loud(15))
            await asyncio.sleep(0.05)
        writer.end()

    speech = [f for _, f in _play(act, 1.5) if not f.silent]
    assert all((f.pcm == 5_000).all() for f in speech[:-1])


def test_write_waits_at_high_water_and_goes_on_as_frames_leave() -> None:
    async def main() -> list[float]:
        playout = Playout(AudioFormat(RATE), high_water_s=0.2)
        loop, times = asyncio.get_running_loop(), []
        writer = playout.open(1)

        async def fill() -> None:
            writer.begin("long")
            for _ in range(10):
                await writer.write(_loud(100))
                times.append(loop.time())

        filler = asyncio.create_task(fill())
        for _ in range(60):
            await playout.next_frame()
        await filler
        return times

    times = run(main())
    assert times[-1] - times[0] == pytest.approx(0.7, abs=0.05)


def test_a_waiting_write_ends_when_revoked() -> None:
    async def main() -> None:
        playout = Playout(AudioFormat(RATE), high_water_s=0.1)
        writer = playout.open(1)
        writer.begin("long")
        await writer.write(_loud(500))
        blocked = asyncio.create_task(writer.write(_loud(500)))
        await asyncio.sleep(0.1)
        assert not blocked.done()
        playout.clear()
        await blocked
        assert writer.queued_s == 0

    run(main())


def test_heard_words_leave_out_what_is_in_flight_and_whole_words_only() -> None:
    heard: list[str] = []

    async def act(playout: Playout) -> None:
        playout.in_flight_ms = 100
        writer = playout.open(1)
        await _say(writer, "alpha beta.", 200)
        await _say(writer, "gamma delta epsilon", 600)
        for _ in range(3):
            await asyncio.sleep(0.19)
            heard.append(writer.heard())
        await asyncio.sleep(0.6)
        writer.finish()
        heard.append(writer.heard())

    _play(act, 2.0)
    assert heard == ["alpha", "alpha beta.", "alpha beta. gamma", "alpha beta. gamma delta epsilon"]


def test_what_was_in_flight_reaches_the_ear_while_the_voice_is_held() -> None:
    letters = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    words: list[int] = []

    async def main() -> None:
        playout = Playout(AudioFormat(RATE))
        playout.in_flight_ms = 300
        writer = playout.open(1)
        await _say(writer, letters, 100 * len(letters))

        async def after(frames: int) -> None:
            for _ in range(frames):
                await playout.next_frame()
            words.append(len(writer.heard().split()))

        await after(100)
        writer.hold()
        await after(0)
        await after(10)
        await after(50)
        writer.release()
        await after(7)
        await after(8)
        await after(50)

    run(main())
    assert words == [9, 9, 10, 10, 10, 10, 15], "five a second, 300 ms later"


def test_what_was_heard_lately_begins_with_a_word_and_ends_with_its_clause() -> None:
    heard: list[str] = []

    async def act(playout: Playout) -> None:
        playout.in_flight_ms = 200
        writer = playout.open(1)
        for clause in ("Is it so?", "Then let us see."):
            writer.begin(clause)
            await writer.write(np.concatenate([_loud(900), _loud(300, 0)]))
            writer.end()
        for ms in (110, 200, 700, 600, 600):
            await asyncio.sleep(ms / 1000)
            heard.append(writer.heard_lately(500))

    _play(act, 3.0)
    assert heard == ["", "Is it so?", "it so?", "so? Then let us see.", "let us see."]


def test_what_was_heard_of_a_script_without_spaces_is_counted_in_characters() -> None:
    async def act(playout: Playout) -> None:
        writer = playout.open(1)
        await _say(writer, "今天天气很好我们去公园", 1100)
        await asyncio.sleep(0.41)
        assert writer.heard() == "今天天气"

    _play(act, 1.3)


@pytest.mark.parametrize(
    "text",
    [
        "ยินดีที่ได้รู้จักคุณนะครับ",
        "ຍິນດີທີ່ໄດ້ຮູ້ຈັກເຈົ້າ",
        "ယနေ့ရာသီဥတုအလွန်ကောင်းသည်",
        "ថ្ងៃនេះអាកាសធាតុល្អណាស់",
        "བཀྲ་ཤིས་བདེ་ལེགས།",
        "ｷｮｳﾊﾄﾃﾓﾖｲﾃﾝｷﾃﾞｽﾈ",
        "𠮷野家で𩸽定食を食べます",
    ],
    ids=["Thai", "Lao", "Burmese", "Khmer", "Tibetan", "half-width kana", "rare Chinese"],
)
def test_half_of_a_clause_without_spaces_is_half_of_its_characters(text: str) -> None:
    queue = SpeechQueue(RATE)
    queue.begin(text, 0)
    queue.append(_loud(1000))
    queue.end()
    queue.take(silence(RATE // 2))
    assert queue.heard(0) == text[: len(text) // 2]


def test_an_unfinished_clause_is_estimated_by_the_speaking_rate() -> None:
    async def act(playout: Playout) -> None:
        writer = playout.open(1)
        writer.begin("one two three four five six seven eight nine ten")
        await writer.write(_loud(1000))
        await asyncio.sleep(0.99)
        assert writer.heard() == "one two three", "15 characters a second"

    _play(act, 1.2)


def test_a_stalled_loop_moves_the_timeline_and_never_bursts() -> None:
    async def main() -> None:
        playout, loop = Playout(AudioFormat(RATE)), asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        at: list[float] = []
        for i in range(60):
            await playout.next_frame()
            at.append(loop.time())
            if i == 20:
                loop.now_s += 0.3
        gaps = np.diff(at)
        assert int((gaps < 0.001).sum()) == 0 and playout.clock.skipped_frames == 14

    run(main())


def test_canceling_a_pull_loses_nothing() -> None:
    async def main() -> None:
        playout = Playout(AudioFormat(RATE))
        await playout.next_frame()
        pull = asyncio.create_task(playout.next_frame())
        await asyncio.sleep(0.005)
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
        assert (await playout.next_frame()).pts == 480

    run(main())
