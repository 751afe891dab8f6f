"""Says scripted texts in turn, whatever it hears: for tests and benchmarks.

Settings: ``VOCAL_SCRIPTED_TEXT`` (texts separated by ``|``, repeated from the start when used up) and
``VOCAL_SCRIPTED_DELAY_MS`` (from a pause or the end of the audio to the words).
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
    """Utterances of all sessions take their texts from one list, in the order of their first words."""

    hears_pauses = True

    def __init__(self, texts: Sequence[str], delay_s: float = 0.0) -> None:
        self._texts = cycle(texts)
        self._delay_s = delay_s

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Say the text, the delay after each pause and the end of the audio; audio without a sample has no words."""
        text: str | None = None
        heard = False
        async for frame in frames:
            heard = heard or len(frame.pcm) > 0
            if heard and not len(frame.pcm):
                await asyncio.sleep(self._delay_s)
                text = text or next(self._texts)
                yield Transcript(text, False, language, frame.pts)
        await asyncio.sleep(self._delay_s)
        yield Transcript((text or next(self._texts)) if heard else "", True, language)


def describe(settings: Settings) -> Usable:
    """Never chosen by itself: it does not listen."""
    return Usable(-1, "scripted words, for tests and benchmarks")


def create(settings: Settings) -> ScriptedSpeechToText:
    """Read the script from the settings."""
    texts = [text.strip() for text in settings.get("VOCAL_SCRIPTED_TEXT", DEFAULT_TEXT).split("|")]
    return ScriptedSpeechToText(texts, number(settings, "VOCAL_SCRIPTED_DELAY_MS", 0.0) / 1000)
