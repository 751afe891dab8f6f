"""Stateful sample-rate conversion through libswresample: the one file of this package that knows PyAV."""

from __future__ import annotations

import numpy as np
from av import AudioFrame, AudioResampler

from .audio import Pcm, silence


class Resampler:
    """Convert a mono stream from ``from_hz`` to ``to_hz``; equal rates pass through untouched.

    How the stream is cut into pushes does not change the output by one bit. Output is aligned with the input (a sample
    at t seconds comes out at t seconds), but its last 16 samples at the lower of both rates (0.7 ms at 24 kHz, 1 ms at
    16 kHz, 2 ms at 8 kHz) are withheld until more input, or ``flush``, brings the filter's right half.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._swr: AudioResampler | None = None
        self._pushed_samples = 0
        self._given_samples = 0

    @property
    def withheld_samples(self) -> int:
        """How much of what was pushed is still to come, at ``to_hz``."""
        return max(0, round(self._pushed_samples * self.to_hz / self.from_hz) - self._given_samples)

    def push(self, pcm: Pcm) -> Pcm:
        """Add samples; return those that are ready. Does not block; about 60 us for 20 ms."""
        if self.from_hz == self.to_hz or not len(pcm):
            return pcm
        if self._swr is None:
            self._swr = AudioResampler(format="s16", layout="mono", rate=self.to_hz)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = self.from_hz
        resampled = _joined(self._swr.resample(frame))
        self._pushed_samples += len(pcm)
        self._given_samples += len(resampled)
        return resampled

    def flush(self) -> Pcm:
        """End the stream: return the samples withheld. The next push starts a new one."""
        swr = self._swr
        self.reset()
        return silence(0) if swr is None else _joined(swr.resample(None))

    def reset(self) -> None:
        """Forget the stream. Costs nothing; the next push pays about 0.6 ms for a new filter."""
        self._swr = None
        self._pushed_samples = self._given_samples = 0


def _joined(frames: list[AudioFrame]) -> Pcm:
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts) if parts else silence(0)
