"""The mean cepstrum of the voice that is speaking, estimated while it speaks.

A recognizer subtracts it, which takes a speaker's and a microphone's colour away. Over a whole utterance it is known
only at its end; PocketSphinx' own running estimate hardly moves within one, and began at the caller before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Cepstra = NDArray[np.float32]
"""Shape ``(frames, 13)``, a frame every 10 ms; the first coefficient is the frame's log energy."""

PRIOR = np.array([47.33, 5.35, -3.54, 7.23, -7.42, 0.04, -6.0, -0.49, 0.29, -1.25, 0.49, -1.1, 1.21])
"""Where every utterance begins: the mean over several speakers and microphones."""

PRIOR_FRAMES = 50
"""How much speech outweighs it: half a second."""

SPEECH_RANGE = 20.0
"""Frames this far below the loudest one, in log energy, are pauses: they would pull the mean to the room's colour."""


class CepstralMean:
    """One utterance's estimate."""

    def __init__(self) -> None:
        self._heard: list[Cepstra] = []
        self._loudest = -np.inf

    def push(self, cepstra: Cepstra) -> str:
        """Hear more; return the estimate as PocketSphinx takes it."""
        self._heard.append(cepstra)
        self._loudest = max(self._loudest, cepstra[:, 0].max(initial=-np.inf))
        heard = np.concatenate(self._heard)
        speech = heard[heard[:, 0] > self._loudest - SPEECH_RANGE]
        mean = (PRIOR * PRIOR_FRAMES + speech.sum(axis=0)) / (PRIOR_FRAMES + len(speech))
        return ",".join(f"{value:.3f}" for value in mean)
