"""Where the utterances of a turn begin and end, in samples."""

from __future__ import annotations

from . import turn_actions as act
from .audio import SAMPLES_PER_MS
from .running_turn import RunningTurn
from .turn_settings import TurnSettings


class UtteranceBounds:
    """Of all turns: what one utterance has is in none other."""

    def __init__(self, settings: TurnSettings) -> None:
        self.started_samples = 0
        self.settled_samples = 0
        """What came before has been transcribed, or never will be."""
        self._preroll_samples = settings.preroll_ms * SAMPLES_PER_MS
        self._max_samples = settings.max_utterance_ms * SAMPLES_PER_MS

    def start(self, turn: RunningTurn, at_samples: int) -> act.StartUtterance:
        """Begin one, and some way before: speech is soft when it begins."""
        # The pre-roll ends where the speech before ended: its last word would be transcribed twice.
        turn.open, turn.final = True, False
        return act.StartUtterance(max(self.settled_samples, at_samples - self._preroll_samples))

    def end(self, turn: RunningTurn, at_samples: int, *, settled: bool = False) -> list[act.Action]:
        """End the one that is open, if any."""
        self.settled_samples = at_samples
        if not turn.open:
            return []
        turn.open, turn.ended_samples = False, at_samples
        return [act.EndUtterance(settled)]

    def split(self, turn: RunningTurn, now_samples: int) -> list[act.Action]:
        """End one that is as long as one may be, and go on with another."""
        if now_samples - self.started_samples < self._max_samples:
            return []
        self.started_samples = now_samples
        return [*self.end(turn, now_samples), self.start(turn, now_samples)]
