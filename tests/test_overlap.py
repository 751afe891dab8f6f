"""Work behind the silence that is waited out anyway: whole conversations in virtual time, with exact latencies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, silence
from pipeline.events import (
    EngineFailed,
    ReplyAudioStarted,
    ReplyStarted,
    Transcript,
    TranscriptUpdated,
    TurnEnded,
    TurnMeasured,
)
from pipeline.session import Session, SessionSettings
from pipeline.speech import SpeechSettings
from pipeline.stt._whisper import Heard, Speech
from pipeline.stt._whisper_utterance import WhisperUtterance
from pipeline.turn_settings import TurnSettings
from pipeline.utterance import Utterance

from .fakes import FakeLlm, FakeStt, FakeTts, LoudnessDetector, engines
from .script import FRAME_MS, play
from .virtual_time import run

STT_S, TTFT_S, TTFB_S = 0.04, 0.12, 0.09
"""What the stages take, one after the other: 250 ms."""


def hears(*texts: str, **more: Any) -> FakeStt:
    return FakeStt(texts, delay_s=STT_S, hears_pauses=True, **more)


def waits(silence_ms: int) -> SessionSettings:
    """Wait for so much silence; speech ends half way through it, as the server has it."""
    return SessionSettings(SpeechSettings(pause_ms=silence_ms // 2), TurnSettings(endpoint_ms=silence_ms))


@pytest.mark.parametrize(("silence_ms", "sound_ms"), [(400, 400), (300, 310), (200, 270)])
def test_all_of_it_lies_behind_the_silence_where_that_is_long_enough(silence_ms: int, sound_ms: int) -> None:
    """The words are asked for after a frame of silence; 270 ms later there is sound."""
    slow = engines(hears("how are you"), FakeLlm(ttft_s=TTFT_S), FakeTts(ttfb_s=TTFB_S))
    played = play("#" * 30 + "." * 100, slow, settings=waits(silence_ms))
    first_ms = played.at(ReplyAudioStarted) - 600
    assert first_ms == max(silence_ms, 20 + 250) or (silence_ms, first_ms) == (300, sound_ms)
    [measured] = played.all(TurnMeasured)
    assert measured.endpoint_ms == silence_ms and measured.first_audio_ms == first_ms
    if silence_ms < 400:
        assert (measured.stt_ms, measured.ttft_ms, measured.ttfb_ms) == (60, 180, 270)


class SlowWindows(LoudnessDetector):
    """Judges 32 ms at once, as Silero does: by the time it has, a frame or two of what follows has come."""

    window_samples = 512

    def open(self) -> SlowWindows:
        return self


def test_sound_that_is_not_judged_yet_is_no_silence() -> None:
    stt = hears("how are you")
    slow = replace(engines(stt), vad=SlowWindows())
    played = play("#" * 30 + "." * 100, slow, settings=waits(300))
    assert len(played.all(TurnEnded)) == 1
    assert [frame.pts // 16 for frame in stt.frames if not len(frame.pcm)] == [640], "once, when there was a silence"


def test_the_words_of_a_pause_are_the_final_ones_if_nothing_follows() -> None:
    stt = hears("how are you")
    played = play("#" * 30 + "." * 100, engines(stt), settings=waits(400))
    assert stt.calls == 1 and played.all(TurnEnded) == [TurnEnded(1, "how are you")]
    told = [event.text for event in played.all(TranscriptUpdated)]
    assert told == ["how are you", "how are you"], "once as they came, and once as the turn's"


def test_a_caller_who_goes_on_at_once_costs_no_model() -> None:
    """A gap within a word is over before its words are there."""
    llm = FakeLlm(ttft_s=TTFT_S)
    played = play("#" * 15 + "." + "#" * 15 + "." * 100, engines(hears("how are you"), llm), settings=waits(300))
    assert played.all(TurnEnded) == [TurnEnded(1, "how are you")]
    assert [prompt[-1].text for prompt in llm.prompts] == ["how are you"]
    assert played.session is not None and played.session.revoked_replies == 0


def test_a_caller_who_goes_on_later_costs_one_and_nothing_of_it_is_heard() -> None:
    llm = FakeLlm(ttft_s=TTFT_S)
    script = "#" * 20 + "." * 6 + "#" * 20 + "." * 100
    played = play(script, engines(hears("how are you my friend"), llm), settings=waits(300))
    assert [prompt[-1].text for prompt in llm.prompts] == ["how are", "how are you my"]
    assert played.all(ReplyStarted) == [ReplyStarted(2)]
    assert min(played.audible()) >= 46 * FRAME_MS + 300
    assert played.session is not None and played.session.revoked_replies == 1


def test_once_it_is_known_how_fast_the_models_are_they_are_not_asked_too_early() -> None:
    """A pause of 180 ms costs the first turn a model call, and later ones none: 220 ms is early enough."""
    llm, stt = FakeLlm("One. Two.", ttft_s=TTFT_S), hears("how are you my friend")
    turn = "#" * 20 + "." * 9 + "#" * 20 + "." * 150
    played = play(turn * 3, engines(stt, llm), settings=waits(400))
    assert len(played.all(TurnEnded)) == 3
    words = [prompt[-1].text for prompt in llm.prompts]
    assert words == ["how are", *["how are you my friend"] * 3]
    assert [m.first_audio_ms for m in played.all(TurnMeasured)] == [400] * 3


def becomes(hears_pauses: bool) -> Callable[[Session], None]:
    def change(session: Session) -> None:
        stt = session._listening._engines.stt
        assert isinstance(stt, FakeStt)
        stt.hears_pauses = hears_pauses

    return change


@pytest.mark.parametrize("at_ms", range(980, 2_900, 160))
@pytest.mark.parametrize("hears_pauses", [True, False])
def test_an_engine_may_hear_pauses_and_hear_them_no_more_at_any_time(hears_pauses: bool, at_ms: int) -> None:
    """One elsewhere may be another one from one moment to the next: no words are lost, and none are waited for."""
    stt = replace(hears("please book a table for four people at eight tonight"), hears_pauses=not hears_pauses)
    script = "#" * 50 + "." * 5 + "#" * 60 + "." * 200
    played = play(script, engines(stt), settings=waits(400), at=(at_ms, becomes(hears_pauses)))
    assert played.all(TurnEnded) == [TurnEnded(1, stt.texts[0])] and played.all(EngineFailed) == []
    assert played.at(TurnEnded) == 115 * FRAME_MS + 400


# --- one utterance


class Engine:
    """Yields what it is told to, and notes what it heard."""

    hears_pauses = True

    def __init__(self) -> None:
        self.says: asyncio.Queue[Transcript] = asyncio.Queue()
        self.frames: list[AudioFrame] = []
        self.ended = self.closed = False

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        listening = asyncio.create_task(self._listen(frames))
        try:
            while True:
                yield await self.says.get()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            self.closed = True

    async def _listen(self, frames: AsyncIterator[AudioFrame]) -> None:
        async for frame in frames:
            self.frames.append(frame)
        self.ended = True


def hearing(test: Any) -> None:
    """Run ``test(engine, utterance, task, failures)`` on an utterance from sample 1000 on."""

    async def main() -> None:
        engine, failures = Engine(), list[str]()
        utterance = Utterance(1000, 5.0, lambda: None, failures.append)
        task = asyncio.create_task(utterance.run(engine, "en"))
        await test(engine, utterance, task, failures)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert engine.closed

    coroutine: Coroutine[Any, Any, None] = main()
    run(coroutine)


def test_a_pause_is_a_frame_without_samples_and_is_answered_by_its_pts() -> None:
    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        def is_settled() -> bool:
            return utterance.settled

        utterance.feed(silence(320))
        utterance.settle()
        utterance.feed(silence(320))
        await asyncio.sleep(0.1)
        assert [(len(frame.pcm), frame.pts) for frame in engine.frames] == [(320, 1000), (0, 1320), (320, 1320)]
        assert not is_settled()
        engine.says.put_nowait(Transcript("hello", False, "en", 1320))
        await asyncio.sleep(0.1)
        assert is_settled() and utterance.transcript.text == "hello" and not utterance.transcript.final
        utterance.settle()
        assert not is_settled(), "another pause, another answer"
        engine.says.put_nowait(Transcript("hello", False, "en", 1320))
        await asyncio.sleep(0.1)
        assert not is_settled()

    hearing(test)


def test_sound_in_tiny_pieces_is_queued_by_20_ms_and_none_of_it_is_lost() -> None:
    """Three samples each, as sockets may bring them: an engine that is a second behind is not 5,000 frames behind."""

    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        sound = np.arange(30_000, dtype=np.int16)
        piece = silence(3)
        for at in range(0, len(sound), 3):
            piece[:] = sound[at : at + 3]  # the caller's memory is used again
            utterance.feed(piece)
        utterance.end()
        await asyncio.sleep(0.1)
        assert failures == [] and utterance.dropped_frames == 0
        assert [frame.pts for frame in engine.frames] == list(range(1000, 31_000, 320))
        assert np.array_equal(np.concatenate([frame.pcm for frame in engine.frames]), sound)

    hearing(test)


@pytest.mark.parametrize("first", ["the answer", "the end"])
def test_if_nothing_follows_the_answer_to_the_pause_is_final_at_once(first: str) -> None:
    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        utterance.settle()
        if first == "the end":
            utterance.end(settled=True)
        engine.says.put_nowait(Transcript("hello", False, "en", 1000))
        await asyncio.sleep(0.1)
        utterance.end(settled=True)
        await asyncio.wait_for(task, 0.1)
        assert utterance.transcript == Transcript("hello", True, "en")
        assert not engine.ended and failures == []

    hearing(test)


def test_no_audio_is_no_pause() -> None:
    """An utterance that begins right where the one before was cut has none yet."""

    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        utterance.feed(silence(0))
        utterance.feed(silence(320))
        await asyncio.sleep(0.1)
        assert [(len(frame.pcm), frame.pts) for frame in engine.frames] == [(320, 1000)]

    hearing(test)


@pytest.mark.parametrize("look", ["hello", "hello hell"])
def test_another_look_at_the_silence_takes_nothing_from_the_answer(look: str) -> None:
    """A streaming engine goes on looking, and may hear words in noise; if nothing follows, those of the pause count."""

    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        utterance.settle()
        engine.says.put_nowait(Transcript("hello", False, "en", 1000))
        await asyncio.sleep(0.1)
        engine.says.put_nowait(Transcript(look, False, "en"))
        await asyncio.sleep(0.1)
        assert utterance.transcript.text == look and utterance.settled is (look == "hello")
        utterance.end(settled=True)
        await asyncio.wait_for(task, 0.1)
        assert utterance.transcript == Transcript("hello", True, "en") and failures == []

    hearing(test)


def test_an_answer_to_the_pause_that_never_comes_is_told() -> None:
    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        utterance.settle()
        utterance.end(settled=True)
        await asyncio.wait_for(task, 5.1)
        assert failures == ["no transcript within 5 s of the utterance's end"] and utterance.transcript.final

    hearing(test)


def test_a_pause_that_is_not_asked_about_leaves_no_answer_of_one_before() -> None:
    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        utterance.settle()
        engine.says.put_nowait(Transcript("hello", False, "en", 1000))
        await asyncio.sleep(0.1)
        utterance.feed(silence(320))
        utterance.settle(hears=False)
        assert utterance.transcript.text == "hello" and not utterance.settled
        utterance.end(settled=True)
        await asyncio.sleep(0.1)
        assert engine.ended and not task.done(), "it is asked for final words"

    hearing(test)


def test_final_words_behind_the_end_of_the_audio_are_final_at_once() -> None:
    """Whether the engine is at its end then or not."""

    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        utterance.feed(silence(320))
        engine.says.put_nowait(Transcript("hello", True, "en"))
        await asyncio.sleep(0.1)
        assert not utterance.transcript.final, "there may be more audio"
        utterance.end()
        await asyncio.sleep(0.1)
        assert not task.done(), "it said that before it had heard all"
        engine.says.put_nowait(Transcript("hello there", False, "en"))
        engine.says.put_nowait(Transcript("hello there", True, "en"))
        await asyncio.wait_for(task, 0.1)
        assert utterance.transcript == Transcript("hello there", True, "en") and failures == []

    hearing(test)


def test_what_follows_a_pause_has_words_of_its_own() -> None:
    async def test(engine: Engine, utterance: Utterance, task: asyncio.Task[None], failures: list[str]) -> None:
        utterance.settle()
        engine.says.put_nowait(Transcript("hello", False, "en", 1000))
        await asyncio.sleep(0.1)
        utterance.end()
        await asyncio.sleep(0.1)
        assert engine.ended and not task.done()

    hearing(test)


def test_an_engine_that_cancels_itself_has_failed() -> None:
    async def main() -> None:
        failures = list[str]()
        utterance = Utterance(0, 5.0, lambda: None, failures.append)
        task = asyncio.create_task(utterance.run(CancelsItself(), "en"))
        await asyncio.wait({task})
        assert not task.cancelled() and utterance.transcript.final
        assert failures == ["the engine canceled itself"]

    run(main())


class CancelsItself:
    """Waits for a future that somebody else cancels."""

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.1, future.cancel)
        yield await future


class Lane:
    """Hears one word in each piece, a second after it was asked."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Heard]] = []

    def ask(self, speech: Speech) -> asyncio.Future[Heard]:
        answer: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        heard = Heard(f"{len(speech.pcm) / SPEECH_RATE_HZ:.0f}", "en")
        asyncio.get_running_loop().call_later(1.0, lambda: None if answer.done() else answer.set_result(heard))
        self.asked.append(answer)
        return answer


def test_another_pause_withdraws_a_look_and_none_of_the_pieces_it_waits_for() -> None:
    async def main() -> None:
        lane, frames = Lane(), asyncio.Queue[AudioFrame | None]()
        utterance = WhisperUtterance(lane, lane, 0, "en")  # type: ignore[arg-type]
        said = list[Transcript]()

        async def spoken() -> AsyncIterator[AudioFrame]:
            while (frame := await frames.get()) is not None:
                yield frame

        async def listen() -> None:
            async for transcript in utterance.transcripts(spoken()):
                said.append(transcript)

        listening = asyncio.create_task(listen())
        second = silence(SPEECH_RATE_HZ)
        for i in range(32):
            frames.put_nowait(AudioFrame(second, SPEECH_RATE_HZ, i * SPEECH_RATE_HZ))
        await asyncio.sleep(0.1)
        for _ in range(3):
            frames.put_nowait(AudioFrame(silence(0), SPEECH_RATE_HZ, 32 * SPEECH_RATE_HZ))
            await asyncio.sleep(0.2)
        await asyncio.sleep(2.0)
        frames.put_nowait(None)
        await listening
        whole_s = [sum(int(word) for word in transcript.text.split()) for transcript in said]
        assert whole_s == [32, 32] and [transcript.final for transcript in said] == [False, True]
        assert said[0].pause_samples == 32 * SPEECH_RATE_HZ

    run(main())
