"""Which speech engines speak with cloned voices: their own, or those that their vendor makes."""

from __future__ import annotations

from typing import Protocol

from .engines import module, names


class VoiceMaker(Protocol):
    """Make voices at a vendor: what a speech engine has as ``voice_maker`` if its vendor clones (see `voice_maker`).

    The engine's module says so with ``MAKES_VOICES = True``.
    """

    async def make(self, name: str, sample: bytes, language: str) -> str:
        """Return the id of a new voice, made from a WAV file, for ``synthesize``. Asked once, within a time limit.

        Raises EngineError, in a user's words. Whoever cancels it cannot know whether a voice was made.
        """
        ...

    async def forget(self, voice: str) -> None:
        """Delete a voice that `make` returned; one that is not there any more is fine. Raises EngineError."""
        ...


def clones(tts: object) -> bool:
    """Tell whether a speech engine takes voice samples."""
    return bool(getattr(tts, "clones", False))


def voice_maker(tts: object) -> VoiceMaker | None:
    """Return what makes voices at a speech engine's vendor, None if it has no such thing."""
    maker: VoiceMaker | None = getattr(tts, "voice_maker", None)
    return maker


def voice_makers() -> list[str]:
    """Return the names of the speech engines whose vendors make voices."""
    return [name for name in names("tts") if getattr(module("tts", name), "MAKES_VOICES", False)]


def can_clone(name: str) -> bool:
    """Tell whether a speech engine speaks with cloned voices, its own or its vendor's, without creating it."""
    return any(getattr(module("tts", name), fact, False) for fact in ("CLONES", "MAKES_VOICES"))
