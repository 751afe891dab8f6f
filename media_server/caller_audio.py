"""The caller's mouth and ear: a sound file in, what came back out, and when either was audible."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from pipeline.audio import VOICE_RATE_HZ, Pcm, silence

AUDIBLE = 200
"""Int16 amplitude (-44 dBFS) from which a sample counts as heard; Opus makes silence of silence."""
SPEECH_DB = 25.0
"""How far below its loudest 20 ms sound is no speech: breath and noise go on in most recordings."""
PAUSE_S = 0.3
"""Silence after which sound is a new onset: longer than the pauses between an agent's clauses."""
KEPT_SILENCE_S = 0.5
MAX_FILE_S = 600.0


class Unreadable(Exception):
    """Say in one line why a file is no speech."""


def read_speech(file: Path, rate_hz: int = VOICE_RATE_HZ) -> Pcm:
    """Decode ``file`` to mono, trimmed to its first and last audible sample. Blocks. Raises Unreadable."""
    try:
        with av.open(str(file)) as container:
            pcm = _decode(container, rate_hz)
    except (OSError, FFmpegError, IndexError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreadable(f"cannot read {file}: {reason}") from None
    audible = _audible(pcm)
    if not len(audible):
        raise Unreadable(f"{file} holds no sound")
    return pcm[audible[0] : audible[-1] + 1]


def _decode(container: av.container.InputContainer, rate_hz: int) -> Pcm:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
    parts = [silence(0)]
    samples = 0
    for frame in container.decode(container.streams.audio[0]):
        for part in resampler.resample(frame):
            parts.append(part.to_ndarray()[0])
            samples += part.samples
        if samples > MAX_FILE_S * rate_hz:
            raise ValueError(f"it is longer than {MAX_FILE_S:.0f} s")
    parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return np.concatenate(parts)


def speech_span(pcm: Pcm, rate_hz: int = VOICE_RATE_HZ) -> tuple[int, int]:
    """Return where the first 20 ms that are speech begin, and where the last of them end, in samples."""
    window = rate_hz // 50
    windows = pcm[: len(pcm) // window * window].reshape(-1, window).astype(np.float32)
    if not len(windows):
        return 0, len(pcm)
    energy = np.square(windows).mean(axis=1)
    speech = np.flatnonzero(energy >= energy.max() * 10 ** (-SPEECH_DB / 10))
    return int(speech[0]) * window, int(speech[-1] + 1) * window


def write_wav(file: Path, pcm: Pcm, rate_hz: int) -> None:
    """Write mono 16-bit sound. Blocks. Raises OSError."""
    with file.open("wb") as raw, wave.open(raw, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(pcm.tobytes())


def _audible(pcm: Pcm) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.flatnonzero(np.abs(pcm.astype(np.int32)) >= AUDIBLE)


@dataclass(frozen=True, slots=True)
class Heard:
    """One stretch of sound: when its first and its last audible sample could be heard, on the loop's clock."""

    first_s: float
    last_s: float


class Ear:
    """Listen to the agent: stretches of sound, and a recording that keeps no pause longer than half a second."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.heard: list[Heard] = []
        self._parts: list[Pcm] = []
        self._silent_samples = 0

    def push(self, pcm: Pcm, now_s: float) -> None:
        """Take sound whose first sample is played at ``now_s``; what is played next continues it."""
        audible = _audible(pcm)
        if len(audible):
            self._hear(now_s + audible[0] / self.rate_hz, now_s + audible[-1] / self.rate_hz)
        self._record(pcm, silent=not len(audible))

    def _hear(self, first_s: float, last_s: float) -> None:
        if self.heard and first_s - self.heard[-1].last_s < PAUSE_S:
            first_s = self.heard.pop().first_s
        self.heard.append(Heard(first_s, last_s))

    def _record(self, pcm: Pcm, *, silent: bool) -> None:
        self._silent_samples = self._silent_samples + len(pcm) if silent else 0
        if self.heard and self._silent_samples <= KEPT_SILENCE_S * self.rate_hz:
            self._parts.append(pcm)

    def recording(self) -> Pcm:
        """Return what was heard, up to the last audible sample."""
        pcm = np.concatenate([silence(0), *self._parts])
        audible = _audible(pcm)
        return pcm[: audible[-1] + 1] if len(audible) else pcm[:0]

    def onset_after(self, moment_s: float) -> float | None:
        """Return when the first sound after ``moment_s`` began; None if it has not."""
        return next((stretch.first_s for stretch in self.heard if stretch.first_s > moment_s), None)

    def silent_after(self, moment_s: float) -> float | None:
        """Return when the sound that was heard at ``moment_s`` ended; None if nothing was heard then."""
        running = [stretch for stretch in self.heard if stretch.first_s <= moment_s <= stretch.last_s]
        return running[-1].last_s if running else None
