"""Engines reached through our own services: they say what they say in-process, and stop when nobody listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from compat_ws.backend import ENGINES
from pipeline import engines
from pipeline.audio import AudioFrame, silence
from pipeline.engines import Kind, load
from pipeline.errors import EngineError
from pipeline.events import Message, Transcript
from pipeline.reply_speech import Speech
from pipeline.tasks import closing

from .fakes import FakeTts, JoiningTts
from .recordings import in_frames, recording
from .service_server import Service, engine_set, serving, shelf
from .vendors import KEY, CartesiaVendor, cartesia_speaks
from .vendors import serving as vendor_serving

ASKED = [Message("system", "Be kind."), Message("user", "I need a cup of tea.")]
STORY = "Once upon a time there was a very long story. " * 20
STOPPED_S = 3.0
"""Within which a service must have closed an engine that nobody listens to any more; it takes milliseconds."""

SLOW = {"VOCAL_ECHO_TOKEN_MS": "5", "VOCAL_ECHO_TEXT": STORY, "VOCAL_TONE_RTF": "0.5"}


@asynccontextmanager
async def reached(
    kind: Kind, settings: Mapping[str, str] | None = None, **named: str
) -> AsyncIterator[tuple[Service, Any]]:
    """Serve engines, and reach the one of this kind."""
    async with serving(engine_set(settings, **named)) as service:
        created = load(kind, "openai_compatible", {f"VOCAL_{kind.upper()}_URL": service.url})
        try:
            assert await created.ready() is None
            yield service, created
        finally:
            await engines.aclose(created)


@pytest.mark.parametrize("name", ["go-forward.wav", "lj001-0008.wav"])
def test_words_are_the_same_as_in_process_and_come_while_the_caller_speaks(name: str) -> None:
    async def spoken() -> AsyncIterator[AudioFrame]:
        pcm = recording(name)
        async for frame in in_frames(pcm[: len(pcm) * 3 // 4]):
            yield frame
        await first_words.wait()
        async for frame in in_frames(pcm[len(pcm) * 3 // 4 :]):
            yield frame

    async def main() -> None:
        async with asyncio.timeout(60), reached("stt", stt="pocketsphinx") as (service, stt):
            heard = []
            async for transcript in stt.transcribe(spoken(), "en"):
                heard.append(transcript)
                if transcript.text:
                    first_words.set()
            here = (await service.app[ENGINES].get("stt")).engine
            in_process = [t async for t in here.transcribe(in_frames(recording(name)), "en")]
            assert heard[-1] == in_process[-1] and heard[-1].final and heard[-1].text
            assert any(t.text and not t.final for t in heard)
            assert service.counts.ended == [("stt", "finished")]

    first_words = asyncio.Event()
    asyncio.run(main())


def test_an_answer_is_the_same_as_in_process() -> None:
    async def main() -> None:
        async with reached("llm") as (service, llm):
            here = (await service.app[ENGINES].get("llm")).engine
            assert [d async for d in llm.complete(ASKED)] == [d async for d in here.complete(ASKED)]
            assert service.counts.ended == [("llm", "finished")]

    asyncio.run(main())


@pytest.mark.parametrize("voice", [None, "tone", "sample:" + "0" * 64])
def test_speech_is_the_same_as_in_process(voice: str | None) -> None:
    """An engine that does not clone speaks with its own voice where a sample is asked for."""

    async def main() -> None:
        async with reached("tts") as (service, tts):
            here = (await service.app[ENGINES].get("tts")).engine
            heard = [pcm async for pcm in tts.synthesize("Hello there.", voice, "en", 1.25)]
            in_process = [pcm async for pcm in here.synthesize("Hello there.", None, "en", 1.25)]
            assert np.array_equal(np.concatenate(heard), np.concatenate(in_process))

    asyncio.run(main())


def test_speech_comes_at_our_rate_whatever_the_engines_is() -> None:
    async def main() -> None:
        async with reached("tts", tts="espeak") as (service, tts):
            here = (await service.app[ENGINES].get("tts")).engine
            heard = [pcm async for pcm in tts.synthesize("Guten Tag.", None, "de", 1.0)]
            in_process = [pcm async for pcm in here.synthesize("Guten Tag.", None, "de", 1.0)]
            seconds = sum(map(len, heard)) / tts.rate_hz, sum(map(len, in_process)) / here.rate_hz
            assert tts.rate_hz != here.rate_hz and seconds[0] == pytest.approx(seconds[1], abs=0.05)

    asyncio.run(main())


def test_what_a_service_refuses_is_told_in_its_words() -> None:
    async def main() -> None:
        async with reached("tts") as (_, tts):
            with pytest.raises(EngineError, match=r"the tts server \(VOCAL_TTS_URL\) .*no voice|.*has one voice"):
                _ = [pcm async for pcm in tts.synthesize("Hello there.", "nobody", "en", 1.0)]

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["llm", "tts"])
def test_closing_the_iterator_makes_the_service_stop(kind: Kind) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), reached(kind, SLOW) as (service, engine):
            items = engine.complete(ASKED) if kind == "llm" else engine.synthesize(STORY, None, "en", 1.0)
            async with closing(items):
                await anext(items)
                await anext(items)
            began_s = time.perf_counter()
            await service.counts.until(lambda: bool(service.counts.ended))
            assert service.counts.ended == [(kind, "abandoned")]
            assert time.perf_counter() - began_s < STOPPED_S
            produced = service.counts.produced
            await asyncio.sleep(0.05)
            assert service.counts.produced == produced

    asyncio.run(main())


# --- pauses


@dataclass
class PausingEar:
    """Says at each pause, and at the end, how many samples there were before it."""

    pauses: list[int] = field(default_factory=list)
    hears_pauses: bool = True

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        samples = 0
        async for frame in frames:
            samples += len(frame.pcm)
            if not len(frame.pcm):
                self.pauses.append(frame.pts)
                yield Transcript(str(samples), False, language, frame.pts)
        yield Transcript(str(samples), True, language)


@asynccontextmanager
async def ear_there(ear: Any) -> AsyncIterator[tuple[Service, Any]]:
    """Serve an ear, and reach it."""
    async with asyncio.timeout(60), serving(shelf({"stt": ear})) as service:
        created = load("stt", "openai_compatible", {"VOCAL_STT_URL": service.url})
        try:
            assert not created.hears_pauses, "nobody knows yet"
            assert await created.ready() is None
            yield service, created
        finally:
            await engines.aclose(created)


AT = 7_000
"""Where on the caller's axis an utterance begins."""


@pytest.mark.parametrize(
    ("said", "pauses"),
    [
        ([1600], [1600]),
        ([1600, 800, 400], [1600, 2400, 2800]),
        ([0, 1600], [0, 1600]),
        ([0, 0, 1600, 0], [0, 0, 1600, 1600]),
    ],
    ids=["one at the end", "several", "the very first thing", "two at the same place"],
)
def test_pauses_are_answered_on_the_caller_s_axis(said: list[int], pauses: list[int]) -> None:
    """The caller goes on when a pause was answered; nothing but the end follows the last."""
    answers = asyncio.Queue[Transcript]()

    async def spoken() -> AsyncIterator[AudioFrame]:
        at_samples = AT
        for samples in said:
            async for frame in in_frames(silence(samples)):
                yield AudioFrame(frame.pcm, frame.rate_hz, at_samples + frame.pts)
            at_samples += samples
            yield AudioFrame(silence(0), 16_000, at_samples)
            assert (await answers.get()).pause_samples == at_samples

    async def main() -> None:
        ear = PausingEar()
        async with ear_there(ear) as (service, stt):
            assert stt.hears_pauses
            heard = []
            async for transcript in stt.transcribe(spoken(), "en"):
                heard.append(transcript)
                answers.put_nowait(transcript)
            assert heard[:-1] == [Transcript(str(at), False, "en", AT + at) for at in pauses]
            assert heard[-1] == Transcript(str(sum(said)), True, "en")
            assert ear.pauses == pauses, "the service counts from the utterance's beginning"
            assert service.counts.ended == [("stt", "finished")]

    asyncio.run(main())


def test_if_nothing_follows_a_pause_the_service_is_left_and_stops() -> None:
    async def spoken() -> AsyncIterator[AudioFrame]:
        yield AudioFrame(silence(320), 16_000, AT)
        yield AudioFrame(silence(0), 16_000, AT + 320)
        await asyncio.Event().wait()

    async def main() -> None:
        async with ear_there(PausingEar()) as (service, stt):
            async with closing(stt.transcribe(spoken(), "en")) as heard:
                assert await anext(heard) == Transcript("320", False, "en", AT + 320)
            await service.counts.until(lambda: bool(service.counts.ended))
            assert service.counts.ended == [("stt", "finished")]

    asyncio.run(main())


@dataclass
class FaintEar(PausingEar):
    """Fails whoever hints at it."""

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        if prompt == "faint":
            raise EngineError("out of memory")
        async with closing(super().transcribe(frames, language, prompt)) as transcripts:
            async for transcript in transcripts:
                yield transcript


def test_another_callers_failure_takes_no_pause_from_this_one() -> None:
    async def main() -> None:
        async with ear_there(FaintEar()) as (_, stt):
            with pytest.raises(EngineError, match="out of memory"):
                _ = [t async for t in stt.transcribe(in_frames(silence(1600)), "en", "faint")]
            assert stt.hears_pauses, "which is asked at each pause of whoever speaks meanwhile"
            frames = [AudioFrame(silence(320), 16_000, 0), AudioFrame(silence(0), 16_000, 320)]
            heard = [t async for t in stt.transcribe(each(frames), "en")]
            assert heard == [Transcript("320", False, "en", 320), Transcript("320", True, "en")]

    asyncio.run(main())


async def each(frames: Sequence[AudioFrame]) -> AsyncIterator[AudioFrame]:
    for frame in frames:
        yield frame


@pytest.mark.parametrize("hears", [True, False])
def test_whether_an_engine_there_hears_pauses_is_known_before_it_is_asked(hears: bool) -> None:
    async def main() -> None:
        async with ear_there(PausingEar(hears_pauses=hears)) as (_, stt):
            assert stt.hears_pauses is hears

    asyncio.run(main())


# --- the clauses of a reply, each a request of its own

REPLY = ["Well, here it comes.", "It is a long story.", "It ends here."]


@asynccontextmanager
async def voice_there(tts: JoiningTts) -> AsyncIterator[tuple[Service, Any]]:
    """Serve a voice that joins clauses, and reach it."""
    async with asyncio.timeout(60), serving(shelf({"tts": tts})) as service:
        created = load("tts", "openai_compatible", {"VOCAL_TTS_URL": service.url})
        try:
            yield service, created
        finally:
            await engines.aclose(created)


async def tell(reply: Speech, clauses: Sequence[str]) -> list[int]:
    """Speak clauses of a reply; return the samples of each."""
    lengths: list[int] = []
    for clause in clauses:
        async with closing(reply.speak(clause)) as sound:
            lengths.append(sum([len(pcm) async for pcm in sound]))
    return lengths


def samples_of(clause: str) -> int:
    return round(len(clause.split()) * FakeTts.s_per_word * 24_000)


def test_the_clauses_of_a_reply_reach_one_speech_there() -> None:
    async def main() -> None:
        tts = JoiningTts()
        async with voice_there(tts) as (_, engine):
            async with aclosing(engine.open(None, "en", 1.0)) as reply:
                assert await tell(reply, REPLY) == [samples_of(clause) for clause in REPLY]
            assert [speech.clauses for speech in tts.speeches] == [REPLY]
        assert [speech.closed for speech in tts.speeches] == [1], "at the latest with the service"

    asyncio.run(main())


def test_replies_at_once_and_single_clauses_do_not_join() -> None:
    async def one(engine: Any) -> None:
        async with aclosing(engine.open(None, "en", 1.0)) as reply:
            await tell(reply, REPLY)

    async def main() -> None:
        tts = JoiningTts(rtf=0.01)
        async with voice_there(tts) as (_, engine):
            await asyncio.gather(*(one(engine) for _ in range(5)))
            assert [speech.clauses for speech in tts.speeches] == [REPLY] * 5
            for _ in range(2):
                async with closing(engine.synthesize(REPLY[0], None, "en", 1.0)) as sound:
                    assert [pcm async for pcm in sound]
            assert [(speech.clauses, speech.closed) for speech in tts.speeches[5:]] == [(REPLY[:1], 1)] * 2

    asyncio.run(main())


def test_a_reply_that_is_cut_off_is_closed_there_at_once() -> None:
    async def main() -> None:
        tts = JoiningTts(rtf=0.5)
        async with voice_there(tts) as (service, engine):
            async with aclosing(engine.open(None, "en", 1.0)) as reply:
                async with closing(reply.speak(REPLY[0])) as sound:
                    assert [pcm async for pcm in sound]
                async with closing(reply.speak(STORY)) as sound:
                    await anext(sound)
                began_s = time.perf_counter()
                await service.counts.until(lambda: len(service.counts.ended) == 2)
                assert time.perf_counter() - began_s < STOPPED_S
            assert service.counts.ended == [("tts", "finished"), ("tts", "abandoned")]
            assert [speech.closed for speech in tts.speeches] == [1]

    asyncio.run(main())


def test_a_clause_that_fails_there_closes_its_speech_and_the_next_one_begins_another() -> None:
    async def main() -> None:
        tts = JoiningTts()
        async with voice_there(tts) as (_, engine):
            async with aclosing(engine.open(None, "en", 1.0)) as reply:
                await tell(reply, REPLY[:1])
                tts.silent = True
                with pytest.raises(EngineError, match="no sound"):
                    await tell(reply, REPLY[1:2])
                tts.silent = False
                await tell(reply, REPLY[2:])
            assert [speech.clauses for speech in tts.speeches] == [REPLY[:2], REPLY[2:]]
            assert [speech.closed for speech in tts.speeches] == [1, 0]

    asyncio.run(main())


async def drain(service: Service, **asked: Any) -> int:
    response = await service.post("/v1/audio/speech", {"input": REPLY[0], "response_format": "pcm", **asked})
    return response.status


def test_another_manner_is_another_speech_and_a_context_is_bounded() -> None:
    async def main() -> None:
        tts = JoiningTts()
        async with voice_there(tts) as (service, _):
            for manner in ({}, {}, {"speed": 2.0}, {"language": "de"}, {"context": "another"}, {"context": ""}):
                assert await drain(service, **{"context": "a", **manner}) == 200
            assert [len(speech.clauses) for speech in tts.speeches] == [2, 1, 1, 1, 1]
            assert await drain(service, context="a" * 65) == 400
            assert await drain(service, context=7) == 400

    asyncio.run(main())


def test_a_reply_is_one_context_at_a_vendor_that_is_reached_through_a_service() -> None:
    async def main() -> None:
        vendor = CartesiaVendor(cartesia_speaks)
        async with vendor_serving(vendor.handle) as url:
            access = {"CARTESIA_API_KEY": KEY, "CARTESIA_BASE_URL": url}
            async with (
                reached("tts", access, tts="cartesia") as (_, engine),
                aclosing(engine.open(None, "en", 1.0)) as reply,
            ):
                assert all(await tell(reply, REPLY))
            assert [request["transcript"].rstrip() for request in vendor.received] == REPLY
            assert len({request["context_id"] for request in vendor.received}) == 1 and vendor.wrong == []

    asyncio.run(main())


def test_a_text_that_says_nothing_opens_nothing() -> None:
    async def main() -> None:
        tts = JoiningTts()
        async with voice_there(tts) as (service, _):
            assert await drain(service, input="***", context="a") == 400
            assert tts.speeches == []

    asyncio.run(main())


def test_leaving_an_utterance_makes_the_service_stop_listening() -> None:
    async def endless() -> AsyncIterator[AudioFrame]:
        while True:
            yield AudioFrame(silence(320), 16_000, 0)
            await asyncio.sleep(0.005)

    async def main() -> None:
        async with asyncio.timeout(60), reached("stt") as (service, stt):
            listening = asyncio.create_task(anext(stt.transcribe(endless(), "en")))
            await service.counts.until(lambda: bool(service.counts.begun))
            began_s = time.perf_counter()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await service.counts.until(lambda: bool(service.counts.ended))
            assert service.counts.ended == [("stt", "abandoned")]
            assert time.perf_counter() - began_s < STOPPED_S

    asyncio.run(main())
