"""Speech by loudness: windows of 10 ms, judged by their peak, counted in samples.

``is_loud`` is the one judgement; ``AudioSpeechDetector`` cuts recordings out of a stream with it, and the ``energy``
voice activity detector hands it on as a probability.
"""

from __future__ import annotations

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
    """The numbers of an `AudioSpeechDetector`: a fraction of full scale, and seconds."""

    energy_threshold: float = 0.1
    min_speech_duration: float = 0.3
    max_silence_duration: float = 0.4
    max_recording_duration: float = 10.0


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

    A recording begins with a loud window and is complete after ``max_silence_duration`` without one, or when it is
    ``max_recording_duration`` long. One whose loud part is shorter than ``min_speech_duration`` is dropped. Durations
    are seconds. The same audio, however it is cut into chunks, gives the same recordings.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        energy_threshold: float = 0.1,
        min_speech_duration: float = 0.3,
        max_silence_duration: float = 0.4,
        max_recording_duration: float = 10.0,
    ) -> None:
        self._threshold = energy_threshold
        self._min_speech_samples = round(min_speech_duration * sample_rate)
        self._max_silence_samples = round(max_silence_duration * sample_rate)
        self._max_recording_samples = round(max_recording_duration * sample_rate)
        self._framer = Framer(max(1, sample_rate // WINDOWS_PER_S))
        self._pending: deque[Pcm] = deque()
        self._recording: _Recording | None = None

    def add_audio_chunk(self, chunk: Pcm) -> Continue | Process:
        """Hear more. At most one recording is returned a call.

        A chunk that completes two leaves the second to the next call, whose chunk may be empty. The chunk is copied:
        the caller may use its memory again.
        """
        self._pending.extend(self._framer.push(np.array(chunk, np.int16)))
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
        loud = is_loud(window, self._threshold)
        if self._recording is None and not loud:
            return None
        recording = self._recording = self._recording or _Recording([])
        recording.windows.append(window)
        recording.samples += len(window)
        if loud:
            recording.loud_samples = recording.samples
        return self._judge(recording)

    def _judge(self, recording: _Recording) -> Process | None:
        if recording.samples - recording.loud_samples >= max(1, self._max_silence_samples):
            return self._complete(recording, "speech_end_detected")
        if recording.samples >= self._max_recording_samples:
            return self._complete(recording, "max_recording_duration")
        return None

    def _complete(
        self, recording: _Recording, reason: Literal["speech_end_detected", "max_recording_duration"]
    ) -> Process | None:
        self._recording = None
        if recording.loud_samples < self._min_speech_samples:
            return None
        return {"action": "process", "reason": reason, "audio_chunks": recording.windows}
