"""Says scripted texts in turn, whatever it hears: for tests and benchmarks.

Settings: ``VOCAL_SCRIPTED_TEXT`` (texts separated by ``|``, repeated from the start when used up) and
``VOCAL_SCRIPTED_DELAY_MS`` (from the end of the audio to the words).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import cycle

from pipeline.audio import AudioFrame
from pipeline.engines import Settings, Usable, number
from pipeline.events import Transcript

DEFAULT_TEXT = "This is what you said."


class ScriptedSpeechToText:
    """Utterances of all sessions take their texts from one list, in the order of their ends."""

    def __init__(self, texts: Sequence[str], delay_s: float = 0.0) -> None:
        self._texts = cycle(texts)
        self._delay_s = delay_s

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Wait for the end of the audio and the delay; audio without a sample has no words."""
        heard = 0
        async for frame in frames:
            heard += len(frame.pcm)
        await asyncio.sleep(self._delay_s)
        yield Transcript(next(self._texts) if heard else "", True, language)


def describe(settings: Settings) -> Usable:
    """Never chosen by itself: it does not listen."""
    return Usable(-1, "scripted words, for tests and benchmarks")


def create(settings: Settings) -> ScriptedSpeechToText:
    """Read the script from the settings."""
    texts = [text.strip() for text in settings.get("VOCAL_SCRIPTED_TEXT", DEFAULT_TEXT).split("|")]
    return ScriptedSpeechToText(texts, number(settings, "VOCAL_SCRIPTED_DELAY_MS", 0.0) / 1000)
