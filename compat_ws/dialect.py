"""How one kind of client speaks over a WebSocket, sans-IO: its messages to typed inputs, a session's events and sound
to its messages.

One ``Dialect`` speaks for one connection and keeps what state its wire format needs (half a sample, a stream's
number). It reads no socket, starts no task and reads no clock but for a timestamp its messages carry. `connection`
does the rest for all dialects alike: pacing, limits, silence, closing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.audio import AudioFormat, AudioFrame, Pcm
from pipeline.events import Event

Message = str | bytes
"""A text or a binary WebSocket message."""


@dataclass(frozen=True, slots=True)
class Configured:
    """The client said whom it wants to talk to, in the fields of the raw-PCM configuration. Once, before all else."""

    request: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """The caller's sound, at 16 kHz, continuing the last."""

    pcm: Pcm = field(repr=False)


@dataclass(frozen=True, slots=True)
class PressStarted:
    """The caller holds the button: what follows is speech until it is let go (push to talk)."""


@dataclass(frozen=True, slots=True)
class PressEnded:
    """The caller let go of the button: the turn is over."""


@dataclass(frozen=True, slots=True)
class Typed:
    """Words that were typed."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The protocol itself wants this sent back (a keep-alive's)."""

    message: Message


@dataclass(frozen=True, slots=True)
class HangUp:
    """The caller ends the call."""


Input = Configured | Audio | PressStarted | PressEnded | Typed | Answer | HangUp


class Dialect(Protocol):
    """See the module."""

    @property
    def output(self) -> AudioFormat:
        """What ``audio`` is given."""
        ...

    @property
    def lead_ms(self) -> int:
        """How much sound the client is sent ahead of time: what it may still play after an interruption."""
        ...

    def receive(self, message: Message) -> Sequence[Input]:
        """Read one message. Raises ProtocolError, and nothing else, for one that cannot be read."""
        ...

    def ready(self) -> Sequence[Message]:
        """Return what tells the client that the call has begun."""
        ...

    def audio(self, frame: AudioFrame) -> Message | None:
        """Return one frame of the agent's voice, never a silent one; None where it belongs to no reply."""
        ...

    def event(self, event: Event) -> Sequence[Message]:
        """Translate one event of the session; call it for every event, in order with ``audio``."""
        ...

    def error(self, message: str) -> Message | None:
        """Tell what was wrong; None in a protocol that has no word for it."""
        ...
