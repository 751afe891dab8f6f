"""No judgement of its own: the silence rule alone decides when the caller has finished."""

from __future__ import annotations

from pipeline.audio import Pcm
from pipeline.engines import Settings, Usable


class SilenceEndOfTurn:
    """Takes every pause for the end of the turn, so that the configured silence is all that is waited for."""

    async def is_complete(self, audio_tail: Pcm, transcript: str) -> float:
        """Return 1.0."""
        return 1.0


def describe(settings: Settings) -> Usable:
    """Usable everywhere; anything that listens is better."""
    return Usable(0, "the silence rule alone")


def create(settings: Settings) -> SilenceEndOfTurn:
    """Needs nothing."""
    return SilenceEndOfTurn()
