"""Engines reached through our own services: they say what they say in-process, and stop when nobody listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from compat_ws.backend import ENGINES
from pipeline import engines
from pipeline.audio import AudioFrame, silence
from pipeline.engines import Kind, load
from pipeline.errors import EngineError
from pipeline.events import Message
from pipeline.tasks import closing

from .recordings import in_frames, recording
from .service_server import Service, engine_set, serving

ASKED = [Message("system", "Be kind."), Message("user", "I need a cup of tea.")]
STORY = "Once upon a time there was a very long story. " * 20
STOPPED_S = 0.5
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
        async with asyncio.timeout(20), reached(kind, SLOW) as (service, engine):
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


def test_leaving_an_utterance_makes_the_service_stop_listening() -> None:
    async def endless() -> AsyncIterator[AudioFrame]:
        while True:
            yield AudioFrame(silence(320), 16_000, 0)
            await asyncio.sleep(0.005)

    async def main() -> None:
        async with asyncio.timeout(20), reached("stt") as (service, stt):
            listening = asyncio.create_task(anext(stt.transcribe(endless(), "en")))
            await service.counts.until(lambda: bool(service.counts.begun))
            began_s = time.perf_counter()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await service.counts.until(lambda: bool(service.counts.ended))
            assert service.counts.ended == [("stt", "abandoned")]
            assert time.perf_counter() - began_s < STOPPED_S

    asyncio.run(main())
