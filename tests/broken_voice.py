"""A voice that breaks at the word "break": a third party's speech engine, found by its dotted name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from pipeline.audio import Pcm
from pipeline.engines import Settings, Usable
from pipeline.errors import EngineError
from pipeline.tts.tone import ToneTextToSpeech


@dataclass(frozen=True, slots=True)
class BrokenVoice:
    """Speaks like ``tone``, as fast as it is heard."""

    rate_hz: int = 24_000

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield half a second of a clause with that word, and fail."""
        samples = 0
        async for pcm in ToneTextToSpeech(real_time_factor=1.0).synthesize(clause, voice, language, speed):
            samples += len(pcm)
            yield pcm
            if "break" in clause and samples > self.rate_hz // 2:
                raise EngineError("the voice broke")


def describe(settings: Settings) -> Usable:
    """Never chosen by itself."""
    return Usable(-1, "for tests")


def create(settings: Settings) -> BrokenVoice:
    """Build it."""
    return BrokenVoice()
