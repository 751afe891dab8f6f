"""No judgment of its own: the silence rule alone decides when the caller has finished."""

from __future__ import annotations

from pipeline.audio import Pcm
from pipeline.endpointing import NO_OPINION
from pipeline.engines import Settings, Usable


class SilenceEndOfTurn:
    """Has no opinion, so that every turn ends after the configured silence."""

    reads_words = False

    async def is_complete(self, audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        """Return 0.5."""
        return NO_OPINION


def describe(settings: Settings) -> Usable:
    """Usable everywhere; anything that listens is better."""
    return Usable(0, "the silence rule alone")


def create(settings: Settings) -> SilenceEndOfTurn:
    """Needs nothing."""
    return SilenceEndOfTurn()
