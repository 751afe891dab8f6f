"""Speech by loudness: windows of 10 ms, judged by their peak, counted in samples.

``is_loud`` is the one judgement; ``AudioSpeechDetector`` cuts recordings out of a stream with it, and the ``energy``
voice activity detector hands it on as a probability.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from .audio import Framer, Pcm

WINDOWS_PER_S = 100
FULL_SCALE = 32768


def is_loud(window: Pcm, threshold: float) -> bool:
    """Tell whether the peak, as a fraction of full scale, lies above ``threshold``."""
    return max(int(window.max()), -int(window.min())) > threshold * FULL_SCALE  # -(-32768) does not fit int16


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """The numbers of an `AudioSpeechDetector`: a fraction of full scale, and seconds.

    Raises ValueError for a threshold outside of 0 to 1 and a duration that is negative or infinite, naming the field.
    """

    energy_threshold: float = 0.1
    min_speech_duration: float = 0.3
    max_silence_duration: float = 0.4
    max_recording_duration: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.energy_threshold <= 1:
            raise ValueError(f"energy_threshold must lie between 0 and 1, not {self.energy_threshold!r}")
        for name in ("min_speech_duration", "max_silence_duration", "max_recording_duration"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of seconds, not {getattr(self, name)!r}")


class Continue(TypedDict):
    """Nothing to do yet."""

    action: Literal["continue"]


class Process(TypedDict):
    """A recording is complete: its first sample is the first loud window's."""

    action: Literal["process"]
    reason: Literal["speech_end_detected", "max_recording_duration"]
    audio_chunks: list[Pcm]


@dataclass(slots=True)
class _Recording:
    windows: list[Pcm]
    samples: int = 0
    loud_samples: int = 0
    """From the first loud window to the end of the last."""


class AudioSpeechDetector:
    """Cut the utterances out of a stream of int16 audio.

    A recording begins with a loud window and is complete after ``max_silence_duration`` without one, or when one more
    window would make it longer than ``max_recording_duration``. It is dropped where its part from the first to the last
    loud window is shorter than ``min_speech_duration``. Durations are seconds. The same audio, however it is cut into
    chunks, gives the same recordings, decided at the same sample.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        energy_threshold: float = 0.1,
        min_speech_duration: float = 0.3,
        max_silence_duration: float = 0.4,
        max_recording_duration: float = 10.0,
    ) -> None:
        """Raise ValueError, which names the parameter, for numbers that make no sense (see `DetectorSettings`)."""
        if sample_rate < WINDOWS_PER_S:
            raise ValueError(f"sample_rate must be at least {WINDOWS_PER_S} Hz, not {sample_rate!r}")
        self._settings = DetectorSettings(
            energy_threshold, min_speech_duration, max_silence_duration, max_recording_duration
        )
        self._min_speech_samples = round(min_speech_duration * sample_rate)
        self._max_silence_samples = max(1, round(max_silence_duration * sample_rate))
        self._max_recording_samples = round(max_recording_duration * sample_rate)
        self._framer = Framer(sample_rate // WINDOWS_PER_S)
        self._pending: deque[Pcm] = deque()
        self._recording: _Recording | None = None

    def add_audio_chunk(self, chunk: Pcm) -> Continue | Process:
        """Hear more. At most one recording is returned a call: the call whose chunk holds the deciding sample.

        A chunk that completes two leaves the second to the next call, whose chunk may be empty. The chunk is copied:
        the caller may use its memory again. Raises ValueError for what is no one-dimensional int16 array.
        """
        if chunk.ndim != 1 or chunk.dtype != np.int16:
            raise ValueError(f"audio must be one row of int16 samples, not {chunk.ndim} dimensions of {chunk.dtype}")
        self._pending.extend(self._framer.push(chunk.copy()))
        while self._pending:
            completed = self._hear(self._pending.popleft())
            if completed is not None:
                return completed
        return {"action": "continue"}

    def reset(self) -> None:
        """Forget everything heard."""
        self._framer.reset()
        self._pending.clear()
        self._recording = None

    def _hear(self, window: Pcm) -> Process | None:
        loud = is_loud(window, self._settings.energy_threshold)
        if self._recording is None and not loud:
            return None
        recording = self._recording = self._recording or _Recording([])
        recording.windows.append(window)
        recording.samples += len(window)
        if loud:
            recording.loud_samples = recording.samples
        return self._judge(recording)

    def _judge(self, recording: _Recording) -> Process | None:
        if recording.samples - recording.loud_samples >= self._max_silence_samples:
            return self._complete(recording, "speech_end_detected")
        if recording.samples + self._framer.window_samples > self._max_recording_samples:
            return self._complete(recording, "max_recording_duration")
        return None

    def _complete(
        self, recording: _Recording, reason: Literal["speech_end_detected", "max_recording_duration"]
    ) -> Process | None:
        self._recording = None
        if recording.loud_samples < self._min_speech_samples:
            return None
        return {"action": "process", "reason": reason, "audio_chunks": recording.windows}
