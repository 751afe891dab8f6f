"""espeak-ng in this process: voices, languages, and that it stops in the middle of a word."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.audio import Pcm
from pipeline.errors import EngineError
from pipeline.tasks import closing
from pipeline.tts import espeak
from pipeline.tts._espeak import Emit, Library, library


@pytest.fixture
def tts() -> Iterator[espeak.EspeakTextToSpeech]:
    engine = espeak.create({})
    yield engine
    engine.close()


async def speech(
    tts: espeak.EspeakTextToSpeech, text: str, voice: str | None = None, language: str = "en", speed: float = 1.0
) -> Pcm:
    return np.concatenate([chunk async for chunk in tts.synthesize(text, voice, language, speed)])


def test_it_streams_chunks_of_60_ms(tts: espeak.EspeakTextToSpeech) -> None:
    async def main() -> None:
        chunks = [c async for c in tts.synthesize("Please tell me more.", None, "en", 1.0)]
        assert len(chunks) > 10
        assert max(map(len, chunks)) <= 0.06 * tts.rate_hz + 1

    asyncio.run(main())


def test_the_library_stops_at_the_chunk_that_nobody_takes() -> None:
    taken: list[Pcm] = []

    def emit(chunk: Pcm) -> bool:
        taken.append(chunk)
        return len(taken) < 5

    library().speak("A very long story. " * 50, "gmw/en-US", 175, emit)
    assert len(taken) == 5


def test_closing_frees_the_library_long_before_the_text_is_spoken(tts: espeak.EspeakTextToSpeech) -> None:
    made: list[int] = []
    speak = Library.speak

    class Counting:
        rate_hz = library().rate_hz
        find = library().find

        def speak(self, text: str, identifier: str, words_per_minute: int, emit: Emit) -> None:
            def count(chunk: Pcm) -> bool:
                made.append(len(chunk))
                return emit(chunk)

            speak(library(), text, identifier, words_per_minute, count)

    tts._library = Counting()  # type: ignore[assignment]

    async def main() -> None:
        async with closing(tts.synthesize("A very long story. " * 20, None, "en", 0.5)) as chunks:
            await anext(chunks)
        await speech(tts, "Next.")

    asyncio.run(main())
    assert sum(made) < 10 * tts.rate_hz  # all of it would be over a minute


def test_a_long_text_lets_others_speak_in_between(tts: espeak.EspeakTextToSpeech) -> None:
    async def main() -> None:
        order: list[str] = []

        async def say(name: str, text: str) -> None:
            await speech(tts, text)
            order.append(name)

        await asyncio.gather(say("long", "A very long story. " * 200), say("short", "Hello."))
        assert order == ["short", "long"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wanted", "identifier"),
    [
        ("en-us", "gmw/en-US"),
        ("EN-US", "gmw/en-US"),
        ("English (America)", "gmw/en-US"),
        ("en-gb", "gmw/en"),
        ("zh", "sit/cmn"),
        ("pt", "roa/pt"),
        ("en-us+f3", "gmw/en-US+f3"),
        ("en-us+nobody", None),
        ("+f3", None),
        ("nobody", None),
        ("../voices/!v/f3", None),
    ],
)
def test_voices_are_found_by_name_language_and_variant(wanted: str, identifier: str | None) -> None:
    assert library().find(wanted) == identifier


def test_languages_and_variants_sound_different_and_a_region_falls_back(tts: espeak.EspeakTextToSpeech) -> None:
    async def main() -> None:
        english = await speech(tts, "Information.")
        assert abs(len(await speech(tts, "Information.", language="de")) - len(english)) > 100
        woman = await speech(tts, "Information.", voice="en-us+f3")
        assert abs(len(woman) - len(english)) > 100 or not np.allclose(woman[:8000], english[:8000], atol=2000)
        assert len(await speech(tts, "Bonjour.", language="fr-CA")) > 4000
        with pytest.raises(EngineError, match="language 'xx'"):
            await speech(tts, "Hello.", language="xx")

    asyncio.run(main())


@pytest.mark.parametrize("speed", [0.25, 4.0])
def test_speeds_it_cannot_speak_are_brought_within_its_range(tts: espeak.EspeakTextToSpeech, speed: float) -> None:
    async def main() -> None:
        usual = len(await speech(tts, "Please tell me more about it."))
        odd = len(await speech(tts, "Please tell me more about it.", speed=speed))
        assert odd > 1.5 * usual if speed < 1 else odd < 0.6 * usual

    asyncio.run(main())


def test_text_is_text_and_never_markup_or_the_end_of_a_string(tts: espeak.EspeakTextToSpeech) -> None:
    async def main() -> None:
        whole = await speech(tts, "one\0two three")
        assert len(whole) > 1.5 * len(await speech(tts, "one"))
        assert len(await speech(tts, "a <break time='20s'/> b")) < 6 * tts.rate_hz

    asyncio.run(main())


def test_engines_share_the_library_s_thread_and_the_last_one_ends_it(tts: espeak.EspeakTextToSpeech) -> None:
    other = espeak.create({})

    async def both() -> None:
        await asyncio.gather(speech(tts, "One."), speech(other, "Two."))

    asyncio.run(both())
    other.close()
    other.close()
    assert [t.name for t in threading.enumerate() if t.name.startswith("espeak")] == ["espeak_0"]
    assert len(asyncio.run(speech(tts, "Still here."))) > 4000
    tts.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("espeak")]
