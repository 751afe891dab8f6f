"""How loud a reply is: it changes along half a Hann window, which has no corner that could be heard as a click."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .audio import Pcm

FADE_MS = 5
"""From sound to silence, and back: too short to be heard as a delay, and longer than a click. What fades out is what
then fades in, and at every sample the two make up the whole."""
DUCKED = 0.25
"""12 dB down: less than half as loud, so the caller hears the agent give way and is heard above it (also above its echo
in their microphone), while its words can still be understood if it was nothing."""
UNDUCK_MS = 60
"""Back up slower than down: a level that jumps up sounds like a word begun anew."""


class Gain:
    """A factor for the samples of one stream, and the way to another."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._level = 1.0
        self._ramp = rise(0)

    @property
    def now(self) -> float:
        """The factor at the next sample, just before it moves on."""
        return self._level if not len(self._ramp) else float(self._ramp[0])

    def move(self, level: float, within_ms: int) -> None:
        """Go from where it is now to ``level``. One that is already on its way there goes on as it did."""
        if level != self._level:
            way = rise(self._rate_hz * within_ms // 1000)
            self._ramp = (self.now + (level - self.now) * way).astype(np.float32)
            self._level = level

    def apply(self, pcm: Pcm) -> None:
        """Scale the next samples in place; at full level they stay what they are, to the bit."""
        moving = min(len(self._ramp), len(pcm))
        if moving:
            pcm[:moving] = scaled(pcm[:moving], self._ramp[:moving])
            self._ramp = self._ramp[moving:]
        if self._level != 1.0:
            pcm[moving:] = scaled(pcm[moving:], self._level)


def rise(samples: int) -> NDArray[np.float32]:
    """Return the way from 0 to 1 in so many samples, the last of which is 1."""
    angle = np.pi / max(1, samples) * np.arange(1, samples + 1)
    way: NDArray[np.float32] = (0.5 - 0.5 * np.cos(angle)).astype(np.float32)
    return way


def scaled(pcm: Pcm, factor: NDArray[np.float32] | float) -> Pcm:
    """Return the samples times ``factor``, which is at most 1."""
    product: Pcm = np.rint(pcm * factor).astype(np.int16)
    return product
