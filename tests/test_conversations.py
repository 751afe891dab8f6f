"""Whole conversations in virtual time, with exact latencies, and sweeps over every 10 ms of a reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.agents import Agent
from pipeline.audio import AudioFormat, AudioFrame, Pcm
from pipeline.events import (
    EngineFailed,
    Event,
    Message,
    ReplyAudioStarted,
    ReplyClauseStarted,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SessionClosed,
    SpeechStarted,
    Transcript,
    TranscriptUpdated,
    TurnEnded,
    TurnMeasured,
)
from pipeline.playout import Playout, PlayoutListener
from pipeline.reply import Patience
from pipeline.session import Session, SessionSettings
from pipeline.speech import SpeechSettings
from pipeline.tasks import closing
from pipeline.turn_settings import TurnSettings

from .fakes import FakeLlm, FakeStt, FakeTts, JoiningTts, LoudnessDetector, engines
from .script import FRAME_MS, SPEECH, Played, conversation, play
from .virtual_time import run

SETTINGS = SessionSettings(SpeechSettings(pause_ms=100), TurnSettings(endpoint_ms=200))
ANSWER = FakeLlm().text


def test_a_turn_is_answered_the_moment_the_silence_rule_fires() -> None:
    played = play("." * 10 + "#" * 30 + "." * 200, settings=SETTINGS)
    speech_end_ms = 40 * FRAME_MS
    assert played.at(TurnEnded) == speech_end_ms + 200
    assert played.at(ReplyAudioStarted) == speech_end_ms + 200
    assert played.all(TurnEnded) == [TurnEnded(1, "hello there")]
    assert played.all(ReplyFinished) == [ReplyFinished(1, ANSWER)]
    assert [(m.role, m.text) for m in played.history] == [("user", "hello there"), ("assistant", ANSWER)]
    [measured] = played.all(TurnMeasured)
    assert (measured.endpoint_ms, measured.first_audio_ms, measured.interrupted) == (200, 200, False)
    assert measured.stt_ms == measured.ttft_ms == measured.ttfb_ms == 100


def test_engines_work_behind_the_silence_that_is_waited_out_anyway() -> None:
    slow = engines(FakeStt(delay_s=0.03), FakeLlm(ttft_s=0.03, per_word_s=0.001), FakeTts(ttfb_s=0.02))
    played = play("#" * 30 + "." * 100, slow, settings=SETTINGS)
    assert played.at(ReplyAudioStarted) - 600 == 200
    slower = engines(FakeStt(delay_s=0.04), FakeLlm(ttft_s=0.12), FakeTts(ttfb_s=0.09))
    played = play("#" * 30 + "." * 100, slower, settings=SETTINGS)
    assert played.at(ReplyAudioStarted) - 600 == 100 + 40 + 120 + 90
    [measured] = played.all(TurnMeasured)
    assert (measured.stt_ms, measured.ttft_ms, measured.ttfb_ms, measured.first_audio_ms) == (140, 260, 350, 350)


def test_a_caller_who_goes_on_revokes_what_was_prepared() -> None:
    llm, stt = FakeLlm(), FakeStt(texts=("hello", "my friend"))
    played = play("#" * 30 + "." * 8 + "#" * 30 + "." * 100, engines(stt, llm), settings=SETTINGS)
    assert [m[-1].text for m in llm.prompts] == ["hello", "hello my friend"]
    assert played.all(TurnEnded) == [TurnEnded(1, "hello my friend")]
    assert played.all(ReplyStarted) == [ReplyStarted(2)]
    assert min(played.audible()) >= (68 * FRAME_MS) + 200
    assert played.session is not None and played.session.revoked_replies == 1


def test_a_prepared_reply_is_kept_if_the_words_did_not_change() -> None:
    llm, stt = FakeLlm(), FakeStt(texts=("hello", ""))
    played = play("#" * 30 + "." * 8 + "#" * 10 + "." * 100, engines(stt, llm), settings=SETTINGS)
    assert len(llm.prompts) == 1
    assert played.all(TurnEnded) == [TurnEnded(1, "hello")]
    assert played.at(ReplyAudioStarted) == 48 * FRAME_MS + 200


def test_noise_without_words_is_no_turn() -> None:
    played = play("#" * 10 + "." * 100, engines(FakeStt(texts=("",))), settings=SETTINGS)
    assert played.all(TurnEnded) == [] and played.audible() == []


def test_words_that_come_late_end_the_turn_when_they_come() -> None:
    played = play("#" * 30 + "." * 100, engines(FakeStt(delay_s=0.5)), settings=SETTINGS)
    assert played.at(ReplyAudioStarted) == 600 + 100 + 500
    assert played.all(TranscriptUpdated)[-1] == TranscriptUpdated("hello there", True, "en")


BARGE_IN = "#" * 30 + "." * 60 + "#" * 30 + "." * 300


def test_barge_in_is_silent_within_80_ms_and_takes_the_floor() -> None:
    played = play(BARGE_IN, engines(FakeStt(texts=("tell me", "stop"))), settings=SETTINGS)
    onset_ms = 90 * FRAME_MS
    held = [ms for ms in played.audible() if onset_ms < ms < onset_ms + 600]
    assert max(held) <= onset_ms + 80 + 20
    [cut] = played.all(ReplyInterrupted)
    assert cut.reply == 1 and ANSWER.startswith(cut.heard) and cut.heard
    assert [m.role for m in played.history] == ["user", "assistant", "user", "assistant"]
    assert played.history[1].text == cut.heard
    assert played.all(ReplyFinished) == [ReplyFinished(2, ANSWER)]


def _loud(played: Played) -> int:
    return sum(int((frame.pcm == 9_000).sum()) for _, frame in played.frames)


def test_interruptions_can_be_switched_off_and_what_was_said_meanwhile_is_the_next_turn() -> None:
    agent = Agent("a", "A", allow_interruptions=False)
    tail = engines(FakeStt(texts=("tell me", "and more")))
    played = play("#" * 30 + "." * 60 + "#" * 150 + "." * 200, tail, settings=SETTINGS, agent=agent)
    assert played.all(ReplyInterrupted) == []
    assert [e.text for e in played.all(TurnEnded)] == ["tell me", "and more"]


def test_typed_words_interrupt_and_are_answered() -> None:
    played = play("." * 300, settings=SETTINGS, at=(100, lambda s: s.push_text("typed")))
    assert played.at(ReplyAudioStarted) == 100
    assert played.history[0].text == "typed"


def test_a_greeting_is_spoken_and_remembered() -> None:
    played = play("." * 200, settings=SETTINGS, agent=Agent("a", "A", greeting="Hello there."))
    assert played.all(ReplyFinished) == [ReplyFinished(1, "Hello there.")]
    assert played.all(TurnMeasured) == [] and played.history[0].role == "assistant"


def test_events_of_a_reply_come_in_the_order_of_what_happens() -> None:
    played = play("#" * 30 + "." * 300, engines(llm=FakeLlm("Hi you. Bye.")), settings=SETTINGS)
    names = [n for n in played.names() if n.startswith("Reply")]
    assert names[0] == "ReplyStarted" and names[-1] == "ReplyFinished"
    assert [e.text for e in played.all(ReplyClauseStarted)] == ["Hi you.", "Bye."]
    assert "".join(e.text for e in played.all(ReplyText)) == "Hi you. Bye. "
    assert played.all(ReplyText)[-1].final


@pytest.mark.parametrize("at_ms", range(0, 4200, 10))
def test_interrupt_at_every_10_ms_of_a_reply(at_ms: int) -> None:
    """From the first prepared work to after the end: never a stale frame, never two ends, heard is a prefix."""
    llm, tts = FakeLlm(ttft_s=0.05, per_word_s=0.02), FakeTts(ttfb_s=0.05, rtf=0.3)
    when = 600 + at_ms + 1
    played = play("#" * 30 + "." * 260, engines(llm=llm, tts=tts), settings=SETTINGS, at=(when, Session.interrupt))
    late = [ms for ms, f in played.frames if not f.silent and ms > when and (f.pcm == 9_000).any()]
    cut = played.all(ReplyInterrupted)
    if cut:
        assert late == []
        assert ANSWER.startswith(cut[0].heard)
        assert cut[0].heard == (played.history[-1].text if played.history[-1].role == "assistant" else "")
    else:
        assert len(played.all(ReplyFinished)) == 1 or not played.all(ReplyStarted)
    assert llm.closed == len(llm.prompts) and tts.closed == len(tts.calls)


# --- a voice that joins the clauses of a reply

CLAUSES = ["One two three four.", "Five six seven eight.", "Nine ten eleven twelve."]


def joined(script: str, tts: JoiningTts, **more: object) -> Played:
    """Play; each speech was closed once, and in it were one reply's clauses."""
    played = play(script, engines(FakeStt(texts=("hello", "my friend")), tts=tts), settings=SETTINGS, **more)
    assert [speech.closed for speech in tts.speeches] == [1] * len(tts.speeches)
    assert all(speech.clauses == CLAUSES[: len(speech.clauses)] for speech in tts.speeches)
    return played


def test_the_clauses_of_a_reply_are_one_speech() -> None:
    tts = JoiningTts()
    played = joined("#" * 30 + "." * 250, tts)
    assert [speech.clauses for speech in tts.speeches] == [CLAUSES]
    assert played.all(ReplyFinished) == [ReplyFinished(1, ANSWER)]
    assert [e.text for e in played.all(ReplyClauseStarted)] == CLAUSES
    plain = play("#" * 30 + "." * 250, engines(FakeStt(texts=("hello",))), settings=SETTINGS)
    assert _loud(played) == _loud(plain) and played.audible() == plain.audible()


def test_replies_do_not_join() -> None:
    tts = JoiningTts()
    played = joined(BARGE_IN, tts)
    assert [cut.reply for cut in played.all(ReplyInterrupted)] == [1]
    assert [speech.clauses for speech in tts.speeches] == [CLAUSES] * 2


@pytest.mark.parametrize("at_ms", range(150, 3_150, 50))
def test_a_speech_that_is_interrupted_is_closed_at_once(at_ms: int) -> None:
    def interrupt(session: Session) -> None:
        session.interrupt()
        asyncio.get_running_loop().call_later(0.001, lambda: closed.extend(s.closed for s in tts.speeches))

    tts, closed = JoiningTts(ttfb_s=0.05, rtf=0.5), list[int]()
    joined("#" * 30 + "." * 200, tts, at=(601 + at_ms, interrupt))
    assert closed == [1], "prepared or released, to the end of its sound"


def test_a_speech_that_was_prepared_in_vain_is_closed() -> None:
    tts = JoiningTts(rtf=0.5)
    played = joined("#" * 30 + "." * 8 + "#" * 30 + "." * 300, tts)
    assert played.session is not None and played.session.revoked_replies == 1
    assert len(tts.speeches) == 2 and played.all(ReplyFinished) == [ReplyFinished(2, ANSWER)]


@pytest.mark.parametrize("fault", [{"fail_after_s": 0.3}, {"silent": True}, {"ttfb_s": 1e6}], ids=str)
def test_a_speech_that_fails_is_closed(fault: dict[str, Any]) -> None:
    tts = JoiningTts(**fault)
    played = joined("#" * 30 + "." * 900, tts)
    assert [failed.stage for failed in played.all(EngineFailed)] == ["tts"]
    assert tts.speeches


def test_a_speech_is_closed_when_the_model_fails_between_two_clauses() -> None:
    tts, llm = JoiningTts(), FakeLlm(per_word_s=0.1, fail_after_words=6)
    played = play("#" * 30 + "." * 200, engines(llm=llm, tts=tts), settings=SETTINGS)
    assert [failed.stage for failed in played.all(EngineFailed)] == ["llm"]
    assert [(speech.clauses, speech.closed) for speech in tts.speeches] == [(CLAUSES[:1], 1)]


def test_a_word_that_comes_in_the_moment_of_the_interruption_is_not_told() -> None:
    class Gated(FakeLlm):
        def __init__(self) -> None:
            super().__init__()
            self.gate = asyncio.Event()

        async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
            yield "Well. "
            await self.gate.wait()
            yield "Too late. "

    llm = Gated()

    def word_and_interruption(session: Session) -> None:
        llm.gate.set()
        session.interrupt()

    played = play("#" * 30 + "." * 60, engines(llm=llm), settings=SETTINGS, at=(1_001, word_and_interruption))
    assert [e.text for e in played.all(ReplyText)] == ["Well. "] and played.all(ReplyInterrupted)


@pytest.mark.parametrize("at_ms", range(0, 3000, 10))
def test_hang_up_at_every_10_ms_of_a_reply(at_ms: int) -> None:
    """The session closes with one terminal event and leaves no task (run() checks); engines are closed."""
    llm, tts = FakeLlm(ttft_s=0.05, per_word_s=0.02), FakeTts(ttfb_s=0.05, rtf=0.3)
    script = "#" * 30 + "." * (at_ms // 20 + 1)
    played = play(script, engines(llm=llm, tts=tts), settings=SETTINGS)
    assert llm.closed == len(llm.prompts) and tts.closed == len(tts.calls)
    assert len(played.all(ReplyStarted)) <= 1


@pytest.mark.parametrize("words", range(12))
def test_a_model_that_fails_ends_only_the_reply(words: int) -> None:
    llm = FakeLlm(per_word_s=0.1, fail_after_words=words)
    played = play("#" * 30 + "." * 150 + "#" * 30 + "." * 40, engines(llm=llm), settings=SETTINGS)
    failed = played.all(EngineFailed)
    assert failed and all(f.stage == "llm" and "fell over" in f.error for f in failed)
    assert len(played.all(TurnEnded)) == 2, "the call lives on"


@pytest.mark.parametrize("at_ms", range(0, 1000, 10))
def test_a_voice_that_fails_at_every_10_ms_ends_only_the_reply(at_ms: int) -> None:
    tts = FakeTts(ttfb_s=0.02, rtf=0.5, fail_after_s=at_ms / 1000)
    played = play("#" * 30 + "." * 250, engines(tts=tts), settings=SETTINGS)
    ends = [*played.all(EngineFailed), *played.all(ReplyFinished)]
    assert len(ends) == 1
    if isinstance(ends[0], EngineFailed):
        assert ends[0].stage == "tts" and ends[0].reply == played.all(ReplyStarted)[-1].reply


class LlmThatCancelsItself(FakeLlm):
    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        yield "One two "
        raise asyncio.CancelledError


class TtsThatCancelsItself(FakeTts):
    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        async with closing(super().synthesize(clause, voice, language, speed)) as sound:
            yield await anext(sound)
        raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("stage", "broken"),
    [
        ("llm", engines(llm=LlmThatCancelsItself())),
        ("tts", engines(tts=TtsThatCancelsItself())),
        ("tts", engines(llm=FakeLlm("One two."), tts=TtsThatCancelsItself())),
        ("llm", engines(llm=FakeLlm(hang=True))),
        ("llm", engines(llm=FakeLlm(text=""))),
        ("llm", engines(llm=FakeLlm(text="\U0001f600 **"))),
        ("tts", engines(tts=FakeTts(silent=True))),
        ("tts", engines(tts=FakeTts(ttfb_s=1e6))),
        ("stt", engines(stt=FakeStt(delay_s=1e6))),
        ("stt", engines(stt=FakeStt(fail=RuntimeError("deaf")))),
    ],
)
def test_an_engine_that_hangs_or_gives_nothing_is_named(stage: str, broken: object) -> None:
    settings = SessionSettings(SETTINGS.speech, SETTINGS.turns, Patience(1.0, 1.0, 1.0))
    played = play("#" * 30 + "." * 150 + "#" * 20 + "." * 10, broken, settings=settings)  # type: ignore[arg-type]
    assert played.all(EngineFailed) and played.all(EngineFailed)[0].stage == stage
    assert len(played.all(SpeechStarted)) == 2, "the call lives on"


def test_a_fault_of_our_own_ends_the_reply_like_an_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.text.ClauseSplitter.flush", lambda self: 1 / 0)
    played = play("#" * 30 + "." * 150, engines(llm=FakeLlm("One two")), settings=SETTINGS)
    assert [f.stage for f in played.all(EngineFailed)] == ["llm"]


def test_a_detector_that_fails_is_told_once_and_typing_still_works() -> None:
    class Broken:
        window_samples = 160

        def open(self) -> Broken:
            return self

        def probability(self, window: object) -> float:
            raise ValueError("no model")

    bundle = engines()
    broken = type(bundle)(Broken(), bundle.stt, bundle.llm, bundle.tts)
    played = play("#" * 100, broken, settings=SETTINGS, at=(50, lambda s: s.push_text("typed")))
    assert [f.stage for f in played.all(EngineFailed)] == ["vad"]
    assert played.audible()


def test_a_detector_that_fails_while_it_holds_the_reply_lets_it_go_on() -> None:
    class Breaking(LoudnessDetector):
        windows = 0

        def open(self) -> Breaking:
            return self

        def probability(self, window: Pcm) -> float:
            self.windows += 1
            if self.windows > 2 * 100:
                raise ValueError("the detector fell over")
            return super().probability(window)

    stt = FakeStt()
    bundle = engines(stt, FakeLlm("One two three four five six seven eight."))
    broken = type(bundle)(Breaking(), bundle.stt, bundle.llm, bundle.tts)
    played = play("#" * 30 + "." * 60 + "#" * 300, broken, settings=SETTINGS)
    assert [f.stage for f in played.all(EngineFailed)] == ["vad"]
    assert len(played.all(ReplyFinished)) == 1, "not held for ever"
    assert len(stt.frames) < 100, "what is said to deaf ears is not transcribed"


def test_a_greeting_does_not_talk_over_a_caller_nor_begin_twice() -> None:
    agent = Agent("a", "A", greeting="Hello there.")
    played = play("." * 200, settings=SETTINGS, agent=agent, at=(200, Session.greet))
    assert played.all(ReplyStarted) == [ReplyStarted(1)]
    late = play("#" * 30 + "." * 200, settings=SETTINGS, agent=Agent("a", "A"), at=(300, _greet_late))
    assert [e.heard for e in late.all(ReplyFinished)] == [ANSWER]


def _greet_late(session: Session) -> None:
    session.agent = Agent("a", "A", greeting="Hello there.")
    session.greet()


def test_blank_typed_words_are_no_turn() -> None:
    played = play("#" * 30 + "." * 200, settings=SETTINGS, at=(1000, lambda s: s.push_text(" \n")))
    assert played.all(TurnEnded) == [TurnEnded(1, "hello there")] and played.all(ReplyFinished)


@pytest.mark.parametrize("interruptible", [True, False])
def test_nothing_begins_while_the_session_closes(interruptible: bool) -> None:
    """Hung up while the caller speaks over the agent and types; an engine takes its time to close."""

    class Lingering(FakeLlm):
        async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
            async with closing(super().complete(messages)) as deltas:
                try:
                    async for delta in deltas:
                        yield delta
                finally:
                    await asyncio.sleep(0.5)

    agent = Agent("a", "A", allow_interruptions=interruptible)
    script = "#" * 30 + "." * 30 + "#" * 9
    llm = Lingering(per_word_s=0.1)
    end_ms = len(script) * FRAME_MS
    played = play(script, engines(llm=llm), settings=SETTINGS, agent=agent, at=(end_ms + 100, _go_on))
    assert len(llm.prompts) == 1 and played.names().count("ReplyInterrupted") == 1


@pytest.mark.parametrize("cancel_ms", [1, 100, 299, 301, 450, 599])
def test_leaving_that_is_canceled_leaves_nothing_behind(cancel_ms: int) -> None:
    """The engines take 300 ms each to close: first that which listens, then the one that speaks."""
    lives: list[str] = []

    class SlowStt(FakeStt):
        async def transcribe(
            self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
        ) -> AsyncIterator[Transcript]:
            async with slow_to_close("stt"), closing(super().transcribe(frames, language, prompt)) as transcripts:
                async for transcript in transcripts:
                    yield transcript

    class SlowTts(FakeTts):
        async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
            async with slow_to_close("tts"), closing(super().synthesize(clause, voice, language, speed)) as sound:
                async for pcm in sound:
                    yield pcm

    @asynccontextmanager
    async def slow_to_close(name: str) -> AsyncIterator[None]:
        lives.append(name)
        try:
            yield
        finally:
            try:
                await asyncio.sleep(0.3)
            finally:
                lives.remove(name)

    async def call(playout: Playout, told: list[Event], leaving: asyncio.Event) -> None:
        agent = Agent("a", "A", greeting="Hello there, and welcome to a greeting that takes its time.")
        async with Session(agent, engines(SlowStt(), tts=SlowTts(rtf=0.5)), playout, SETTINGS) as session:
            session.subscribe(told.append)
            session.greet()
            await asyncio.sleep(0.2)
            session.push_audio(SPEECH.repeat(5))
            await asyncio.sleep(0.1)
            assert lives == ["tts", "stt"]
            leaving.set()
        raise AssertionError("canceled before it had left")

    async def main() -> None:
        playout, told, leaving = Playout(AudioFormat(24_000)), list[Event](), asyncio.Event()
        calling = asyncio.create_task(call(playout, told, leaving))
        await leaving.wait()
        await asyncio.sleep(cancel_ms / 1000)
        calling.cancel()
        await asyncio.wait({calling})
        assert calling.cancelled() and lives == []
        assert [type(event) for event in told[-2:]] == [ReplyInterrupted, SessionClosed]
        assert playout.listener == PlayoutListener(), "the session's is let go"

    run(main())


def _go_on(session: Session) -> None:
    session.push_text("typed")
    session.push_audio(SPEECH.repeat(30))
    session.greet()


def test_the_ear_is_told_the_names_that_have_been_written() -> None:
    stt = FakeStt(("i am greys hopper", "yes"))
    ada = Agent("a", "A", system_prompt="You are Ada, at Acme Dental.")
    llm = FakeLlm("Shall I call you Grace Hopper?")
    play("#" * 40 + "." * 250 + "#" * 40 + "." * 100, engines(stt, llm), settings=SETTINGS, agent=ada)
    assert stt.prompts == ["Ada, Acme Dental", "Ada, Acme Dental, Grace Hopper"]


def test_an_utterance_that_is_forgotten_says_nothing_more() -> None:
    class Sore(FakeStt):
        async def transcribe(
            self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
        ) -> AsyncIterator[Transcript]:
            try:
                async for _ in frames:
                    yield Transcript("by", False, None)
            finally:
                raise RuntimeError("it does not like to be closed")

    played = play("#" * 25 + "." * 65, engines(Sore()), settings=SETTINGS, at=(500, lambda s: s.push_text("typed")))
    told = played.names()[played.names().index("TurnEnded") :]
    assert "TranscriptUpdated" not in told and "EngineFailed" not in told


def test_noise_without_words_leaves_nothing_behind() -> None:
    kept: list[int] = []
    noise = "." * 20 + ("#" * 6 + "." * 20) * 20
    end_ms = len(noise) * FRAME_MS - 1
    play(
        noise,
        engines(FakeStt(texts=("",))),
        settings=SETTINGS,
        at=(end_ms, lambda s: kept.append(len(s._listening._utterances))),
    )
    assert kept == [0]


def test_a_listener_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def break_it(session: Session) -> None:
        session.subscribe(lambda event: 1 / 0)  # type: ignore[arg-type]

    played = play("#" * 30 + "." * 200, settings=SETTINGS, at=(1, break_it))
    assert played.all(ReplyFinished) and "ZeroDivisionError" in caplog.text


def test_a_slow_listener_of_the_playout_does_not_grow_the_queue() -> None:
    """The voice is faster than real time; the writer waits at high water."""

    async def main() -> float:
        tts = FakeTts(s_per_word=10.0)
        peak = 0.0

        async def watch(session: Session) -> None:
            nonlocal peak
            while True:
                writer = session.playout.writer
                peak = max(peak, writer.queued_s if writer else 0.0)
                await asyncio.sleep(0.01)

        watcher: list[asyncio.Task[None]] = []
        played = await conversation(
            "#" * 30 + "." * 300,
            engines(tts=tts),
            SETTINGS,
            at=(1, lambda s: watcher.append(asyncio.create_task(watch(s)))),
        )
        watcher[0].cancel()
        await asyncio.gather(*watcher, return_exceptions=True)
        assert played.audible()
        return peak

    assert 29 < run(main()) <= 30.2
