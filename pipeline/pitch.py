"""How high a voice is, moment by moment: enough to hear that a man and a woman speak, not who they are.

The period is found as in McLeod and Wyvill, "A smarter way to find pitch" (ICMC 2005): the first peak of the
normalized autocorrelation that is nearly as high as the highest one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .audio import SPEECH_RATE_HZ, Pcm, to_float32

FRAME_SAMPLES: Final = 1_024
HOP_SAMPLES: Final = 256
LOWEST_HZ: Final = 60
HIGHEST_HZ: Final = 400
"""People speak from 65 (creaking) to 400 Hz (exclaiming)."""
VOICED_FROM: Final = 0.7
"""Of a perfectly periodic sound's autocorrelation."""
NEARLY: Final = 0.9
"""Of the highest peak: a lower period's own would be mistaken for the voice's, or its double."""
FFT_SAMPLES: Final = 2_048

LOW_END_HZ: Final = 250
NO_LOW_END_DB: Final = -22.0
"""Share of the power below `LOW_END_HZ`: voices have -2 to -20 dB, and less behind a steep filter at 300 Hz."""

PIECE_SAMPLES: Final = SPEECH_RATE_HZ
PIECE_LEAST_FRAMES: Final = 8
"""Voiced frames of a second from which its median is believed."""
APART_SEMITONES: Final = 10.0
"""Between the means of two groups: one lively reader's seconds had up to 9.1, a man's and a woman's 10.3 and more."""
SHARE_LEAST: Final = 0.12
"""Of all voiced frames, in the smaller group: less may be a laugh."""


def pitch_hz(pcm: Pcm) -> NDArray[np.float64]:
    """Return the pitch of each frame (`FRAME_SAMPLES` at 16 kHz, every `HOP_SAMPLES`), NaN where nothing is voiced.

    Blocks: 0.2 s for 30 s.
    """
    if len(pcm) < FRAME_SAMPLES:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(to_float32(pcm), FRAME_SAMPLES)[::HOP_SAMPLES]
    shortest, longest = SPEECH_RATE_HZ // HIGHEST_HZ, SPEECH_RATE_HZ // LOWEST_HZ
    alike = _autocorrelation(frames, longest + 1)
    inner = alike[:, shortest:-1]
    is_peak = (inner >= alike[:, shortest - 1 : -2]) & (inner >= alike[:, shortest + 1 :])
    peaks = np.where(is_peak, inner, -1.0)
    highest = peaks.max(axis=1)
    period = (peaks >= NEARLY * highest[:, None]).argmax(axis=1) + shortest
    return np.where(highest >= VOICED_FROM, SPEECH_RATE_HZ / period, np.nan)


def _autocorrelation(frames: NDArray[np.float32], longest: int) -> NDArray[np.float64]:
    """Return it for lags of 0 to ``longest``, normalized to -1..1 by the power of what overlaps."""
    lags = np.arange(longest + 1)
    power = np.abs(np.fft.rfft(frames, FFT_SAMPLES)) ** 2
    products = np.fft.irfft(power, FFT_SAMPLES)[:, : longest + 1]
    sums = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(frames.astype(np.float64) ** 2, axis=1)], axis=1)
    overlapping = sums[:, FRAME_SAMPLES - lags] + sums[:, [FRAME_SAMPLES]] - sums[:, lags]
    alike: NDArray[np.float64] = 2.0 * products / np.maximum(overlapping, 1e-9)
    return alike


def two_voices_hz(pcm: Pcm, is_speech: NDArray[np.bool_], window_samples: int) -> tuple[float, float] | None:
    """Return how high two clearly different voices are, the lower first; None for one, and for two that are alike.

    ``is_speech`` tells it of each window. Every second of speech is a median pitch; they are split into two groups as
    Otsu splits a histogram. A recording without low frequencies is not judged: there harmonics pass for voices.
    """
    if _has_no_low_end(pcm):
        return None
    semitones, weights = _pieces(pcm, is_speech, window_samples)
    if len(semitones) < 2:
        return None
    below, above, share = _split(semitones, weights)
    if above - below < APART_SEMITONES or share < SHARE_LEAST:
        return None
    return _hz(below), _hz(above)


def _has_no_low_end(pcm: Pcm) -> bool:
    power = np.abs(np.fft.rfft(to_float32(pcm))) ** 2
    low = power[: round(LOW_END_HZ * len(pcm) / SPEECH_RATE_HZ)].sum()
    return bool(10.0 * np.log10((low + 1e-12) / (power.sum() + 1e-9)) < NO_LOW_END_DB)


def _pieces(
    pcm: Pcm, is_speech: NDArray[np.bool_], window_samples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each second's median pitch in semitones above 1 Hz, ascending, and how many frames it is of."""
    pitch = pitch_hz(pcm)
    middles = np.arange(len(pitch)) * HOP_SAMPLES + FRAME_SAMPLES // 2
    spoken = is_speech[np.minimum(middles // window_samples, len(is_speech) - 1)] & ~np.isnan(pitch)
    seconds = middles[spoken] // PIECE_SAMPLES
    groups = [pitch[spoken][seconds == second] for second in np.unique(seconds)]
    believed = [(12.0 * np.log2(np.median(group)), len(group)) for group in groups if len(group) >= PIECE_LEAST_FRAMES]
    ordered = np.array(sorted(believed), np.float64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def _split(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the means of the two groups that differ most, and the smaller one's share."""
    share = np.cumsum(weights)[:-1] / weights.sum()
    below = np.cumsum(values * weights)[:-1] / np.cumsum(weights)[:-1]
    above = np.cumsum((values * weights)[::-1])[::-1][1:] / np.cumsum(weights[::-1])[::-1][1:]
    best = int(np.argmax(share * (1.0 - share) * (above - below) ** 2))
    return float(below[best]), float(above[best]), float(min(share[best], 1.0 - share[best]))


def _hz(semitones: float) -> float:
    return float(2.0 ** (semitones / 12.0))
