"""Everything a session says about a conversation, as frozen facts.

Invariant: each ``ReplyStarted`` is followed by exactly one of ``ReplyFinished``, ``ReplyInterrupted`` or
``EngineFailed`` that carries its number. A reply prepared early and then revoked was never started.

``at_samples`` counts the caller's samples at 16 kHz since the session began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Transcript:
    """The cumulative hypothesis of one utterance, not a delta.

    ``pause_samples``: these are all the words up to the pause at that pts, as good as final (`engines.SpeechToText`).
    """

    text: str
    final: bool
    language: str | None = None
    pause_samples: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One item of history; an agent's text is what was heard."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak, or pressed the talk button, at ``at_samples``. One end follows before the next."""

    at_samples: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The caller's last speech sample so far is ``at_samples``; the turn may still go on, unless a button ended it."""

    at_samples: int


@dataclass(frozen=True, slots=True)
class TranscriptUpdated:
    """The words of the running turn so far, all its utterances joined; ``final`` once at the turn's end."""

    text: str
    final: bool
    language: str | None = None


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The caller's turn is over; ``text`` is what the agent will answer."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The agent may speak: its reply is released."""

    reply: int


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A delta of the language model; ``final`` marks its end (then ``text`` may be empty)."""

    reply: int
    text: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class ReplyAudioStarted:
    """The reply's first audible frame left, by the playout clock."""

    reply: int


@dataclass(frozen=True, slots=True)
class ReplyClauseStarted:
    """The first sample of this clause left, by the playout clock: its words are being heard now."""

    reply: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """The reply's last audible frame left; ``heard`` is all of its words."""

    reply: int
    heard: str


@dataclass(frozen=True, slots=True)
class ReplyInterrupted:
    """The caller took the floor; ``heard`` is what had reached them (may be empty)."""

    reply: int
    heard: str


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """An engine failed. ``reply`` is the reply it ended, or None when it failed outside a reply."""

    stage: Literal["vad", "stt", "llm", "tts", "turn"]
    error: str
    reply: int | None = None


@dataclass(frozen=True, slots=True)
class TurnMeasured:
    """One turn's timeline, sent after its reply ended.

    All times are milliseconds after the caller's last speech sample; None where a stage did not happen.
    Work done while the end of the turn was still being decided lies before ``endpoint_ms``.
    """

    turn: int
    interrupted: bool
    user: str
    agent: str
    endpoint_ms: float | None = None
    stt_ms: float | None = None
    ttft_ms: float | None = None
    first_clause_ms: float | None = None
    ttfb_ms: float | None = None
    first_audio_ms: float | None = None

    @property
    def was_spoken(self) -> bool:
        """Whether there was a last speech sample to count from; typed words have none."""
        return self.stt_ms is not None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session is over; nothing follows."""

    reason: str


Event = (
    SpeechStarted
    | SpeechEnded
    | TranscriptUpdated
    | TurnEnded
    | ReplyStarted
    | ReplyText
    | ReplyAudioStarted
    | ReplyClauseStarted
    | ReplyFinished
    | ReplyInterrupted
    | EngineFailed
    | TurnMeasured
    | SessionClosed
)
