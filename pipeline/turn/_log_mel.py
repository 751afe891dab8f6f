"""Whisper's view of sound: how loud each of 80 bands is, every 10 ms, on a logarithmic scale.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022), section 2.2; the bands are on
Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above it, of equal area.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.audio import SPEECH_RATE_HZ

BANDS: Final = 80
WINDOW_SAMPLES: Final = 400
HOP_SAMPLES: Final = 160

LINEAR_UP_TO_HZ: Final = 1000.0
HZ_PER_MEL: Final = 200.0 / 3.0
MELS_PER_OCTAVE: Final = 27.0 * np.log(2.0) / np.log(6.4)
"""Above `LINEAR_UP_TO_HZ`: 27 bands up to 6.4 times that."""

QUIETEST: Final = 1e-10
RANGE_DECADES: Final = 8.0


def log_mel(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return shape ``(BANDS, len(sound) // HOP_SAMPLES)``, mostly within -1 to 1. Blocks: 6 ms for 8 s."""
    padded = np.pad(sound, WINDOW_SAMPLES // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    windows = windows[: len(sound) // HOP_SAMPLES]
    power = np.abs(np.fft.rfft(windows * _hann())) ** 2
    loudness = np.log10(np.maximum(_bands() @ power.T.astype(np.float32), QUIETEST))
    levels: NDArray[np.float32] = (np.maximum(loudness, loudness.max() - RANGE_DECADES) + 4.0) / 4.0
    return levels.astype(np.float32)


@cache
def _hann() -> NDArray[np.float32]:
    """Return the periodic window: its next sample would be its first."""
    return np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)


@cache
def _bands() -> NDArray[np.float32]:
    """Return how much of each frequency goes into each band: triangles that overlap by half."""
    highest_mel = LINEAR_UP_TO_HZ / HZ_PER_MEL + MELS_PER_OCTAVE * np.log2(SPEECH_RATE_HZ / 2 / LINEAR_UP_TO_HZ)
    corners_hz = _hz(np.linspace(0.0, highest_mel, BANDS + 2))
    below, peak, above = corners_hz[:-2, None], corners_hz[1:-1, None], corners_hz[2:, None]
    frequencies_hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1.0 / SPEECH_RATE_HZ)
    rising, falling = (frequencies_hz - below) / (peak - below), (above - frequencies_hz) / (above - peak)
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (above - below)
    return triangles.astype(np.float32)


def _hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = mels - LINEAR_UP_TO_HZ / HZ_PER_MEL
    return np.where(above < 0.0, mels * HZ_PER_MEL, LINEAR_UP_TO_HZ * 2.0 ** (above / MELS_PER_OCTAVE))
