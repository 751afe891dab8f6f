"""How much of what a microphone heard is a copy of what left, and how long ago that left.

Normalized cross-correlation of the newest sound at all delays at once. Both spectra span the same time, so that bins
lie alike at any pair of rates and nothing is resampled; both are whitened by what was heard, which keeps what relates
them and takes away what all voices have in common (a few strong harmonics, which match at some delay by chance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .audio import SAMPLES_PER_MS, Pcm

Floats = NDArray[np.float64]

HEARD_MS = 144
"""How much is compared; the newest weighs most, the oldest nothing."""
SPAN_MS = 2 * HEARD_MS
"""What is compared with spans this or a multiple of it: at 8, 16, 24 and 48 kHz sizes with small factors."""
NEWEST_MS = 32
GRID_PER_MS = 8
"""Delays are told apart by 1/8 ms."""
OFFSET_HZ, MURMUR_HZ, LOW_HZ, HIGH_HZ = 14, 80, 200, 3400
"""What is below is an offset; where low voices have their power; the band that telephones let through."""
OFFSET_SHARE = 0.03
"""An offset that comes or goes has so much in the band, of its own power."""
IN_BAND = 0.5
"""Sound with a smaller share of its power above `LOW_HZ` is compared from `MURMUR_HZ` on."""
SMOOTH_HZ = 150
WHITENING = 0.6
"""0 leaves the spectrum as it is, 1 makes it flat, noise between the harmonics included."""
FLOOR = 1e-4

_RISING: Floats = np.arange(HEARD_MS * GRID_PER_MS) / (HEARD_MS * GRID_PER_MS)
_NEWEST = NEWEST_MS * GRID_PER_MS
_BINS = SPAN_MS * GRID_PER_MS // 2 + 1
_OFFSET, _MURMUR, _LOW, _HIGH = (hz * SPAN_MS // 1000 for hz in (OFFSET_HZ, MURMUR_HZ, LOW_HZ, HIGH_HZ))
_ARM = SMOOTH_HZ * SPAN_MS // 2000
_TAPER: Floats = np.minimum(
    1, np.minimum(np.arange(HEARD_MS * SAMPLES_PER_MS) / 160, np.arange(HEARD_MS * SAMPLES_PER_MS)[::-1] / 48)
)
"""The cuts, of 10 and 3 ms, lest those through low frequencies be heard in the band."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """The delay at which what was heard is most like what left."""

    delay_ms: float
    share: float
    """Of the power heard, what a copy of what left explains: 1 for an echo without room, noise or another voice."""
    gain: float
    """Power heard over power that left."""
    newest_gain: float
    """The same of the last `NEWEST_MS` alone, against the louder of what left just then and what may still ring."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest `HEARD_MS` of a microphone, whitened, and by what."""

    sound: Floats
    whitening: Floats

    @classmethod
    def of(cls, pcm: Pcm) -> Self | None:
        """Whiten `HEARD_MS` of sound at 16 kHz; None if there is nothing in the band but an offset's edges."""
        spectrum = np.fft.rfft(pcm * _TAPER, SPAN_MS * SAMPLES_PER_MS)
        power = np.abs(spectrum) ** 2
        voice = power[_MURMUR:_HIGH].sum()
        if voice <= OFFSET_SHARE * power[:_OFFSET].sum():
            return None
        low = _LOW if power[_LOW:_HIGH].sum() > IN_BAND * voice else _MURMUR
        around = np.cumsum(power)
        envelope = around[low + _ARM : _HIGH + _ARM] - around[low - _ARM : _HIGH - _ARM]
        whitening = np.zeros(_BINS)
        whitening[low:_HIGH] = (envelope + envelope.max() * FLOOR) ** (-WHITENING / 2)
        return cls(np.fft.irfft(spectrum[:_BINS] * whitening)[: len(_RISING)], whitening)

    def compare(self, sent: Pcm, span_ms: int, longest_ms: int) -> Likeness:
        """Find the delay, of 0 to ``longest_ms``, in the last ``span_ms`` of what left, at any rate."""
        grid, count = span_ms * GRID_PER_MS, len(_RISING)
        whitening = np.repeat(self.whitening, span_ms // SPAN_MS)[: grid // 2 + 1]
        spectrum = np.fft.rfft(sent)[: grid // 2 + 1] * whitening * (span_ms * SAMPLES_PER_MS / len(sent))
        weighted = self.sound * _RISING
        common = np.fft.irfft(np.conj(np.fft.rfft(weighted, grid)) * spectrum)
        power = np.fft.irfft(spectrum) ** 2
        powers = _rising_sums(power, count)
        heard = float(self.sound @ weighted)
        first = grid - count - longest_ms * GRID_PER_MS
        floor = powers.max() * 1e-3 + 1e-12
        shares = common[first : len(powers)] ** 2 / (heard * np.maximum(powers[first:], floor))
        begin = first + int(shares.argmax())
        rings = max(float(powers[begin]), float(floor))
        just_then = float(power[begin + count - _NEWEST : begin + count].sum()) / _NEWEST
        newest = float(np.square(self.sound[-_NEWEST:]).sum()) / _NEWEST
        return Likeness(
            delay_ms=(grid - count - begin) / GRID_PER_MS,
            share=float(shares[begin - first]),
            gain=heard / rings,
            newest_gain=newest / max(just_then, rings / (count / 2)),
        )


def _rising_sums(values: Floats, count: int) -> Floats:
    """Return for each place the sum of the ``count`` values from there on, weighted from 0 up to 1."""
    once = np.concatenate([[0.0], np.cumsum(values)])
    twice = np.concatenate([[0.0], np.cumsum(once)])
    sums: Floats = once[count:] - (twice[count + 1 :] - twice[1:-count]) / count
    return sums
