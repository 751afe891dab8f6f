"""Audio as the pipeline knows it: mono, 16-bit, counted in samples."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]
"""Mono samples, shape ``(samples,)``, full scale at +-32767."""

SPEECH_RATE_HZ = 16_000
"""The rate of everything that listens: speech detection, turn taking, speech-to-text."""

SAMPLES_PER_MS = SPEECH_RATE_HZ // 1000
"""Of speech: how turn taking and speech detection turn their settings into samples."""

VOICE_RATE_HZ = 24_000
"""The rate at which the agent's voice leaves, but for telephony."""

UNKNOWN_BYTES = 0xFFFF_FFFF
"""What a WAV announces whose length is not known when it begins."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How a transport wants its audio: always mono."""

    rate_hz: int
    ptime_ms: int = 20

    @property
    def frame_samples(self) -> int:
        """Samples in one frame of ``ptime_ms``."""
        return self.rate_hz * self.ptime_ms // 1000


@dataclass(frozen=True, slots=True, eq=False)
class AudioFrame:
    """One ptime of audio.

    ``pts`` is the index of the first sample on the stream's own axis. ``silent`` is true
    where the stream has nothing to say, so a transport may send a cached packet or nothing.
    """

    pcm: Pcm = field(repr=False)
    rate_hz: int
    pts: int
    silent: bool = False

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.pcm) / self.rate_hz


def silence(samples: int) -> Pcm:
    """Return ``samples`` zero samples."""
    return np.zeros(samples, np.int16)


def to_int16(audio: NDArray[np.floating]) -> Pcm:
    """Convert float samples in -1..1 to int16; what lies outside is clipped."""
    scaled: Pcm = (np.clip(audio, -1.0, 1.0) * 32767.0).round().astype(np.int16)
    return scaled


def to_float32(pcm: Pcm) -> NDArray[np.float32]:
    """Convert int16 samples to float32 in -1..1."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def wav_header(rate_hz: int, sound_bytes: int | None) -> bytes:
    """Return what precedes mono s16le samples in a WAV file; None where their number is not known yet."""
    riff_bytes, data_bytes = (UNKNOWN_BYTES,) * 2 if sound_bytes is None else (36 + sound_bytes, sound_bytes)
    riff = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return riff + form + struct.pack("<4sI", b"data", data_bytes)


class Framer:
    """Cut a stream of any chunking into windows of ``window_samples``, keeping the rest."""

    def __init__(self, window_samples: int) -> None:
        self.window_samples = window_samples
        self._rest: Pcm = silence(0)

    def push(self, pcm: Pcm) -> list[Pcm]:
        """Add samples; return the windows that are now complete, in order."""
        joined = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        whole = len(joined) // self.window_samples * self.window_samples
        self._rest = joined[whole:].copy()
        return [joined[i : i + self.window_samples] for i in range(0, whole, self.window_samples)]

    def flush(self) -> Pcm:
        """Return the incomplete window, which may be empty, and begin anew."""
        rest, self._rest = self._rest, silence(0)
        return rest

    def reset(self) -> None:
        """Forget the incomplete window."""
        self._rest = silence(0)


class AudioTail:
    """The last ``limit_samples`` of a stream, addressed by sample index: a ring, whatever the pieces' size."""

    def __init__(self, limit_samples: int) -> None:
        self._ring = silence(limit_samples)
        self.end_samples = 0

    @property
    def begin_samples(self) -> int:
        """The index of the oldest sample kept."""
        return max(0, self.end_samples - len(self._ring))

    def push(self, pcm: Pcm) -> None:
        """Append a copy; what is older than the limit goes."""
        self.end_samples += len(pcm)
        kept = pcm[-len(self._ring) :]
        self._ring.put(np.arange(self.end_samples - len(kept), self.end_samples), kept, mode="wrap")

    def since(self, at_samples: int) -> Pcm:
        """Return what came from index ``at_samples`` on, as far back as it is kept."""
        begin = max(at_samples, self.begin_samples)
        split = begin % len(self._ring)
        return np.concatenate([self._ring[split:], self._ring[:split]])[: max(0, self.end_samples - begin)]
