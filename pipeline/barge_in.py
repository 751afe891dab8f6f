"""Does the caller take the floor from the agent? Facts in, actions out; no clock, no await.

A sound that may become speech ducks the agent, speech pauses it, and only words take its turn: a cough, a noise or a
sign of attention ("mm-hm") costs it nothing, and it goes on where it was. Words are waited for; an agent that has been
paused for too long goes on meanwhile, and then is not paused again by what may be no more than noise: a dog that barks
for a minute does not silence it.
"""

from __future__ import annotations

from . import turn_actions as act
from .audio import SAMPLES_PER_MS
from .turn_settings import TurnSettings


class BargeIn:
    """``contested`` while the caller speaks over the agent, or has, and it is not known what to make of it."""

    def __init__(self, settings: TurnSettings) -> None:
        self.contested = False
        self._settings = settings
        self._ducked = False
        self._held_samples: int | None = None
        self._waited = False

    def stir(self, stirring: bool) -> list[act.Action]:
        """There is a sound over the agent that may become speech, or there is not (any more)."""
        if stirring is self._ducked:
            return []
        self._ducked = stirring
        return [act.DuckReply() if stirring else act.UnduckReply()]

    def begin(self, at_samples: int) -> list[act.Action]:
        """It is speech, from this sample on."""
        self.contested, self._ducked = True, False
        if self._held_samples is not None or self._waited:
            return []
        self._held_samples = at_samples
        return [act.HoldReply()]

    def by_length(self, spoken_samples: int, text: str) -> bool:
        """Tell whether speech of this length takes the floor though its words so far, if there are any, did not."""
        limit_ms = self._settings.backchannel_ms if text else self._settings.barge_in_ms
        return self.contested and spoken_samples >= limit_ms * SAMPLES_PER_MS

    def wait(self, now_samples: int, silent_samples: int) -> list[act.Action]:
        """The caller has been silent for so long, or is not, and their words, if there are any, are not known yet."""
        if self._held_samples is None:
            return []
        verdict = self._settings.verdict_ms * SAMPLES_PER_MS
        longest = verdict + self._settings.barge_in_ms * SAMPLES_PER_MS
        if silent_samples < verdict and now_samples - self._held_samples < longest:
            return []
        self._held_samples, self._waited = None, True
        return [act.ResumeReply()]

    def end(self) -> None:
        """The floor is taken, or was not, or the agent has ended."""
        self.contested = self._ducked = self._waited = False
        self._held_samples = None
