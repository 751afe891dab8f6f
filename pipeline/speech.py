"""From a detector's probabilities to the start and end of speech, counted in samples.

Hysteresis in level (``start_probability``, ``stop_probability``) and in time: speech starts when ``min_speech_ms`` of
it has been heard, and ends when ``pause_ms`` of silence followed. Nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, Framer, Pcm, silence
from .engines import SpeechProbability
from .events import SpeechEnded, SpeechStarted


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """When sound is speech. Times in milliseconds of audio."""

    start_probability: float = 0.5
    stop_probability: float = 0.35
    min_speech_ms: int = 64
    pause_ms: int = 200


class SpeechSegmenter:
    """Windows' probabilities in, SpeechStarted and SpeechEnded out."""

    def __init__(self, settings: SpeechSettings) -> None:
        self._settings = settings
        self.speaking = False
        self.last_speech_samples = 0
        self._at_samples = 0
        self._onset_samples: int | None = None

    def push(self, probability: float, window_samples: int) -> SpeechStarted | SpeechEnded | None:
        """Judge the next window."""
        begin = self._at_samples
        self._at_samples += window_samples
        if self.speaking:
            return self._look_for_end(probability)
        return self._look_for_start(probability, begin)

    @property
    def stirring(self) -> bool:
        """Whether the last window sounded like speech that is too short yet to count."""
        return self._onset_samples is not None and not self.speaking

    def _look_for_start(self, probability: float, begin: int) -> SpeechStarted | None:
        if probability < self._settings.start_probability:
            self._onset_samples = None
            return None
        if self._onset_samples is None:
            self._onset_samples = begin
        if self._at_samples - self._onset_samples < self._settings.min_speech_ms * SAMPLES_PER_MS:
            return None
        self.speaking, self.last_speech_samples = True, self._at_samples
        return SpeechStarted(self._onset_samples)

    def _look_for_end(self, probability: float) -> SpeechEnded | None:
        if probability >= self._settings.stop_probability:
            self.last_speech_samples = self._at_samples
            return None
        if self._at_samples - self.last_speech_samples < self._settings.pause_ms * SAMPLES_PER_MS:
            return None
        self.speaking, self._onset_samples = False, None
        return SpeechEnded(self.last_speech_samples)


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
        return self._ring.take(np.arange(begin, self.end_samples), mode="wrap")


class Ear:
    """One session's speech detection: any chunking of 16 kHz audio in, speech events out."""

    TAIL_S = 8

    def __init__(self, detector: SpeechProbability, settings: SpeechSettings) -> None:
        self._detector = detector
        self._framer = Framer(detector.window_samples)
        self._segmenter = SpeechSegmenter(settings)
        self.tail = AudioTail(self.TAIL_S * SPEECH_RATE_HZ)

    @property
    def heard_samples(self) -> int:
        """Samples received so far."""
        return self.tail.end_samples

    @property
    def last_speech_samples(self) -> int:
        """Where the speech heard last ended, so far."""
        return self._segmenter.last_speech_samples

    @property
    def stirring(self) -> bool:
        """Whether speech may have begun just now; known within ``min_speech_ms``."""
        return self._segmenter.stirring

    def push(self, pcm: Pcm) -> list[SpeechStarted | SpeechEnded]:
        """Hear more; return what began or ended. Takes under 1 ms per window."""
        self.tail.push(pcm)
        judged = (self._judge(window) for window in self._framer.push(pcm))
        return [event for event in judged if event is not None]

    def _judge(self, window: Pcm) -> SpeechStarted | SpeechEnded | None:
        return self._segmenter.push(self._detector.probability(window), len(window))
