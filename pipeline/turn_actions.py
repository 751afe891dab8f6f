"""What turn taking asks a session to do, as frozen facts; the session carries them out in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StartUtterance:
    """Transcribe from this sample on."""

    from_samples: int


@dataclass(frozen=True, slots=True)
class SettleWords:
    """The caller has fallen silent, maybe for good: the words up to here are wanted now."""


@dataclass(frozen=True, slots=True)
class EndUtterance:
    """The utterance's audio is complete. ``settled``: nothing was said since the last SettleWords."""

    settled: bool = False


@dataclass(frozen=True, slots=True)
class DropUtterance:
    """It was nothing (a cough, a noise without words): forget it."""


@dataclass(frozen=True, slots=True)
class CutSpeech:
    """The turn is as long as it may be: what the caller goes on to say is new speech."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask the end-of-turn engine whether the turn, with these words, is over; an earlier question needs no answer."""

    text: str


@dataclass(frozen=True, slots=True)
class PrepareReply:
    """Think about an answer to these words, held."""

    text: str


@dataclass(frozen=True, slots=True)
class RevokeReply:
    """The prepared reply answers words that are no longer all."""


@dataclass(frozen=True, slots=True)
class EndTurn:
    """The turn is over: answer these words. The caller spoke up to ``ended_samples``, None if they only typed."""

    text: str
    ended_samples: int | None


@dataclass(frozen=True, slots=True)
class DuckReply:
    """Soften the agent's voice: there is a sound that may become the caller's speech."""


@dataclass(frozen=True, slots=True)
class UnduckReply:
    """It did not."""


@dataclass(frozen=True, slots=True)
class HoldReply:
    """Pause the agent: the caller may be taking the floor."""


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """The caller did not take the floor: go on, as loud as ever."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The caller has the floor."""


ListeningAction = StartUtterance | SettleWords | EndUtterance | Judge
ReplyAction = PrepareReply | RevokeReply | DuckReply | UnduckReply | HoldReply | ResumeReply | Interrupt
Action = ListeningAction | DropUtterance | CutSpeech | EndTurn | ReplyAction
