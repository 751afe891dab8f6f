"""Judge by the words so far, or by the voice where they tell nothing: no model, and nothing to install.

The words are English; `_words` has their cues and weights. Without words, or with those of another language, the marks
that a recognizer writes count, and whether the voice falls (`_prosody`). Where the words are read the voice adds
nothing that could be measured, and is not listened to.
"""

from __future__ import annotations

import math
from functools import partial

from pipeline.audio import Pcm
from pipeline.engines import Settings, Usable
from pipeline.threads import EngineThreads, run_in_thread

from ._prosody import final_rise_semitones
from ._words import cues, is_read

RANK = 20
FALL_WEIGHT = 0.3
"""Log-odds for each semitone."""


class HeuristicEndOfTurn:
    """Knows nothing of any session; voices are listened to on a thread of its own."""

    def __init__(self) -> None:
        self._threads = EngineThreads("heuristic")
        self.close = self._threads.close

    async def is_complete(self, audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        """Return a probability within microseconds where words are read, and 5 ms where the voice is listened to."""
        log_odds = sum(cue.weight for cue in cues(transcript, language))
        if not (transcript.strip() and is_read(language)):
            log_odds -= FALL_WEIGHT * await run_in_thread(self._threads, partial(final_rise_semitones, audio_tail))
        return 1.0 / (1.0 + math.exp(-log_odds))


def describe(settings: Settings) -> Usable:
    """Usable everywhere; a model hears more."""
    return Usable(RANK, "by the words so far, and the fall of the voice")


def create(settings: Settings) -> HeuristicEndOfTurn:
    """Needs nothing."""
    return HeuristicEndOfTurn()
