"""What turn taking knows of the turn that is running, and of speech that has to wait for its end."""

from __future__ import annotations

from dataclasses import dataclass

from . import turn_actions as act
from .audio import SAMPLES_PER_MS
from .floor import Caller
from .history import MAX_CHARS


@dataclass(frozen=True, slots=True)
class Burst:
    """Speech that has to wait; it still goes on if it has no end."""

    since_samples: int
    until_samples: int | None = None


@dataclass(frozen=True, slots=True)
class Press:
    """The talk button is down, and what there was before."""

    since_samples: int
    before: Caller
    waiting: Burst | None

    @property
    def over_speech(self) -> bool:
        """Whether the caller was speaking anyway."""
        return self.before is Caller.SPEAKING or (self.waiting is not None and self.waiting.until_samples is None)

    def lasts(self, now_samples: int, limit_ms: int) -> bool:
        """Tell whether the button has been down for so long."""
        return now_samples - self.since_samples >= limit_ms * SAMPLES_PER_MS


@dataclass(slots=True)
class RunningTurn:
    """A turn without utterances has no words that could still change: it is ``final`` until one begins."""

    text: str = ""
    typed: str = ""
    final: bool = True
    settled: bool = False
    """The words are those of everything up to the silence that lasts, as good as final."""
    asked: bool = False
    """They were asked for, when it began."""
    silent_samples: int = 0
    """How long the caller has been silent."""
    stirring: bool = False
    """There is a sound that may become speech: the turn does not end in this moment."""
    open: bool = False
    """An utterance is being transcribed whose audio is not complete."""
    prepared: str | None = None
    press: Press | None = None
    began_samples: int = 0
    ended_samples: int | None = None

    def type(self, text: str) -> None:
        """Add typed words; of all that was typed the end counts, as in the history."""
        self.typed = f"{self.typed} {text}".strip()[-MAX_CHARS:]

    def lasts(self, now_samples: int, limit_ms: int) -> bool:
        """Tell whether it has gone on for so long."""
        return now_samples - self.began_samples >= limit_ms * SAMPLES_PER_MS

    def prepare(self) -> list[act.Action]:
        """Have an answer prepared, once per wording, if these are all words so far."""
        if not self.ready or self.prepared == self.text:
            return []
        self.prepared = self.text
        return [act.PrepareReply(self.text)]

    def revoke(self) -> list[act.Action]:
        """Have the answer thrown away that was prepared for other words."""
        if self.prepared in (None, self.text):
            return []
        self.prepared = None
        return [act.RevokeReply()]

    def go_on(self) -> None:
        """The silence is over."""
        self.settled = self.asked = self.stirring = False
        self.silent_samples = 0

    @property
    def ready(self) -> bool:
        """Whether these are all words so far."""
        return bool(self.text) and (self.final or self.settled)

    @property
    def said(self) -> str:
        """What there is to answer."""
        return f"{self.typed} {self.text}".strip() if self.typed else self.text
