"""How much silence ends the caller's turn, by an end-of-turn engine's judgment of that silence. No clock, no await.

The wait for a probability ``p`` that the turn is over, a straight line on either side of no opinion:

    p    0.0              0.5          1.0
    ms   endpoint_max_ms  endpoint_ms  endpoint_min_ms

The engine is asked when a silence is ``judge_ms`` long, and again when the words change meanwhile. Until it has
answered the turn is not over before ``endpoint_max_ms``; whoever asks it sees to it that an answer comes. One that
never came is no opinion, and so is an engine that is not there.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from . import turn_actions as act
from .audio import SAMPLES_PER_MS
from .turn_settings import TurnSettings

NO_OPINION = 0.5
ANSWERS = 8
"""The slowest of so many answers is what the next one is expected to take, ..."""
SLACK_MS = 20
"""... and this much more: a frame, for no more often is it looked. Further ones cost model calls and gain nothing."""


class Asks(Enum):
    """When an end-of-turn engine is asked about a silence."""

    NEVER = auto()
    """There is none."""
    ONCE = auto()
    """It goes by the sound alone."""
    AGAIN = auto()
    """Whenever the words have changed, too."""


class Endpointing:
    """The judgment of the silence that lasts."""

    def __init__(self, settings: TurnSettings, asks: Asks) -> None:
        self._middle_ms = settings.endpoint_ms
        self._least_ms = min(settings.endpoint_min_ms, settings.endpoint_ms)
        self._most_ms = max(settings.endpoint_max_ms, settings.endpoint_ms)
        self._asks = asks if self._least_ms < self._most_ms else Asks.NEVER
        self._asked: str | None = None
        self._pending = False
        self._probability = NO_OPINION
        self._answer_ms = settings.answer_ms
        self._took_ms: deque[float] = deque(maxlen=ANSWERS)

    def ask(self, words: str) -> list[act.Action]:
        """The silence is to be judged, with these words so far."""
        if self._asks is Asks.NEVER or self._asked == words or (self._asks is Asks.ONCE and self._asked is not None):
            return []
        self._asked, self._pending = words, True
        return [act.Judge(words)]

    def reworded(self, words: str, *, settled: bool = False) -> list[act.Action]:
        """The words changed: a judgment of others is void. ``settled`` ones are worth a first look."""
        first = self._asked is None and not (settled and self._asks is Asks.AGAIN)
        return [] if first else self.ask(words)

    def answered(self, probability: float | None) -> None:
        """The engine judged, or did not in time (None). An answer about an earlier silence changes nothing."""
        if self._pending:
            self._pending = False
            self._probability = NO_OPINION if probability is None else probability

    def forget(self) -> None:
        """The caller goes on: the next silence is another one."""
        self._asked, self._pending, self._probability = None, False, NO_OPINION

    def answer_took(self, ms: float) -> None:
        """An answer took so long, from the words to its first sound."""
        self._took_ms.append(ms)

    def is_soon_over(self, silent_samples: int) -> bool:
        """Tell whether an answer begun now would be there when this silence ends the turn, but hardly any sooner.

        A silence that is not judged yet is one like any other.
        """
        wait_ms = self.wait_ms(NO_OPINION if self._pending else self._probability)
        soon_ms = max(self._took_ms) + SLACK_MS if self._took_ms else self._answer_ms
        return silent_samples >= (wait_ms - soon_ms) * SAMPLES_PER_MS

    def is_over(self, silent_samples: int) -> bool:
        """Tell whether this much silence ends the turn."""
        wait_ms = self._most_ms if self._pending else self.wait_ms(self._probability)
        return silent_samples >= wait_ms * SAMPLES_PER_MS

    def wait_ms(self, probability: float) -> int:
        """Return how long a silence has to be that is judged like this."""
        if probability < NO_OPINION:
            return round(self._middle_ms + (self._most_ms - self._middle_ms) * (1 - probability / NO_OPINION))
        certain = (probability - NO_OPINION) / (1 - NO_OPINION)
        return round(self._middle_ms - (self._middle_ms - self._least_ms) * certain)
