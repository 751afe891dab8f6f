"""The speech of one reply, clause by clause, joined where the engine can do that.

An engine that can has a method ``open(voice, language, speed) -> Speech``. It returns at once, before there is a
clause, and may prepare for the first one meanwhile; it raises what ``synthesize`` would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from .audio import Pcm
from .engines import TextToSpeech
from .tasks import closing


class Speech(Protocol):
    """One reply's speech: its clauses join, so that prosody carries on from one to the next."""

    def speak(self, clause: str) -> AsyncIterator[Pcm]:
        """Yield the clause's sound as ``synthesize`` does, from its first sample to its last and no further.

        One clause at a time. Closing the iterator stops output at once; nothing joins to a clause that was cut off.
        """
        ...

    async def aclose(self) -> None:
        """End it, wherever it is: what still runs is canceled. Takes a second at most, raises nothing; idempotent."""
        ...


def joins(tts: object) -> bool:
    """Tell whether a speech engine joins the clauses of a reply."""
    return callable(getattr(tts, "open", None))


def open_speech(tts: TextToSpeech, voice: str | None, language: str, speed: float) -> Speech:
    """Begin a reply: what is opened must be closed. Its clauses join where the engine can do that."""
    if not joins(tts):
        return _Unjoined(tts, voice, language, speed)
    speech: Speech = getattr(tts, "open")(voice, language, speed)  # noqa: B009 - the contract has it as an option
    return speech


async def speak_alone(
    tts: TextToSpeech, clause: str, voice: str | None, language: str, speed: float
) -> AsyncIterator[Pcm]:
    """Speak a reply of a single clause: ``synthesize``, for an engine that has ``open``."""
    async with aclosing(open_speech(tts, voice, language, speed)) as speech, closing(speech.speak(clause)) as sound:
        async for pcm in sound:
            yield pcm


@dataclass(frozen=True, slots=True)
class _Unjoined:
    """The speech of an engine to which each clause is the first one."""

    tts: TextToSpeech
    voice: str | None
    language: str
    speed: float

    def speak(self, clause: str) -> AsyncIterator[Pcm]:
        return self.tts.synthesize(clause, self.voice, self.language, self.speed)

    async def aclose(self) -> None:
        """Do nothing: between clauses there is nothing."""
