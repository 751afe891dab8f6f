"""From a detector's probabilities to the start and end of speech, counted in samples.

Hysteresis in level (``start_probability``, ``stop_probability``) and in time: speech starts when ``min_speech_ms`` of
it has been heard, and ends when ``pause_ms`` of silence followed. Who presses a talk button speaks from the press to
the release, whatever it sounds like. Nothing here reads a clock.

A detector that lingers takes some of the silence after speech for speech. Where that is known to have been silence, by
its level, speech ended before it: all silences, and what they decide, begin at the caller's last sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from .audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, AudioTail, Framer, Pcm
from .echo import HEARD_SAMPLES, Echo
from .engines import SpeechProbability
from .events import SpeechEnded, SpeechStarted


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """When sound is speech. Times in milliseconds of audio."""

    start_probability: float = 0.5
    stop_probability: float = 0.35
    min_speech_ms: int = 50
    pause_ms: int = 200
    gap_ms: int = 0
    """Silence that does not part what lies around it: ``min_speech_ms`` may contain it, and after a pause that is
    shorter speech goes on at once. For detectors that take only the loud parts of speech for speech."""


class _Hearing(Enum):
    QUIET = auto()
    SPEAKING = auto()
    PRESSED = auto()
    TRAILING = auto()
    """Speech that began before the talk button was released, and is no start of anything."""


class SpeechSegmenter:
    """Windows' probabilities in, SpeechStarted and SpeechEnded out, in turns and never back in time.

    What would lie before the event told last lies there: a button is pressed, released and cut within a window, and all
    of what a lingering detector took for speech may have been silent.
    """

    def __init__(self, settings: SpeechSettings) -> None:
        self.last_speech_samples = 0
        self._settings = settings
        self._hearing = _Hearing.QUIET
        self._pressed_over_speech = False
        self._at_samples = 0
        self._stir_samples: int | None = None
        self._onset_samples: int | None = None
        self._told_samples = 0

    def push(
        self, probability: float, window_samples: int, lingered: Callable[[], int] = lambda: 0
    ) -> SpeechStarted | SpeechEnded | None:
        """Judge the next window. ``lingered`` tells how many samples before it were silent already; asked if it is."""
        begin = self._at_samples
        if self.sounding and probability < self._least_probability:
            self.last_speech_samples -= max(0, min(lingered(), self.last_speech_samples - self._told_samples))
        self._at_samples += window_samples
        if self._hearing is _Hearing.QUIET:
            return self._look_for_start(probability, begin)
        return self._look_for_end(probability)

    def may_begin(self, probability: float) -> bool:
        """Tell whether speech may begin with a window of this probability."""
        return self._hearing is _Hearing.QUIET and probability >= self._settings.start_probability

    @property
    def stirring(self) -> bool:
        """Whether there was speech just now that is too short yet to count, or may go on after a pause."""
        return self._stir_samples is not None and self._hearing is _Hearing.QUIET

    @property
    def sounding(self) -> bool:
        """Whether the last window was speech."""
        return self.last_speech_samples == self._at_samples

    @property
    def _least_probability(self) -> float:
        """What the next window must have to be speech."""
        quiet = self._hearing is _Hearing.QUIET
        return self._settings.start_probability if quiet else self._settings.stop_probability

    def press(self, at_samples: int) -> SpeechStarted | None:
        """Take everything for speech from here on; tell its start unless it had started."""
        self._pressed_over_speech, self._hearing = self._speaking, _Hearing.PRESSED
        return None if self._pressed_over_speech else SpeechStarted(self._told(at_samples))

    def release(self, at_samples: int, *, slipped: bool = False) -> SpeechEnded | None:
        """End what the press began; the caller's last sounds, up to a pause, are not told.

        ``slipped``: the press was no press, and speech that it fell into goes on.
        """
        if self._hearing is not _Hearing.PRESSED:
            return None
        if slipped and self._pressed_over_speech:
            self._hearing = _Hearing.SPEAKING
            return None
        self._fall_quiet()
        if self._silent_ms() < self._whole_pause_ms():
            self._hearing = _Hearing.TRAILING
        return SpeechEnded(self._told(at_samples))

    def cut(self, at_samples: int) -> SpeechEnded | None:
        """End speech here, if there is any; if it goes on, that is new speech."""
        pressed, speaking = self._hearing is _Hearing.PRESSED, self._speaking
        self._fall_quiet()
        return SpeechEnded(self._told(at_samples if pressed else self.last_speech_samples)) if speaking else None

    def _told(self, at_samples: int) -> int:
        self._told_samples = max(self._told_samples, at_samples)
        return self._told_samples

    @property
    def _speaking(self) -> bool:
        return self._hearing in (_Hearing.SPEAKING, _Hearing.PRESSED)

    def _silent_ms(self) -> float:
        return (self._at_samples - self.last_speech_samples) / SAMPLES_PER_MS

    def _fall_quiet(self) -> None:
        self._hearing = _Hearing.QUIET
        self._stir_samples = self._onset_samples = None

    def _look_for_start(self, probability: float, begin: int) -> SpeechStarted | None:
        if probability < self._least_probability:
            if self._silent_ms() >= self._settings.gap_ms:
                self._fall_quiet()
            return None
        self.last_speech_samples = self._at_samples
        self._stir_samples = begin if self._stir_samples is None else self._stir_samples
        self._onset_samples = begin if self._onset_samples is None else self._onset_samples
        if self._at_samples - self._stir_samples < self._settings.min_speech_ms * SAMPLES_PER_MS:
            return None
        self._hearing = _Hearing.SPEAKING
        return SpeechStarted(self._told(self._onset_samples))

    def _look_for_end(self, probability: float) -> SpeechEnded | None:
        if probability >= self._least_probability:
            self.last_speech_samples = self._at_samples
        elif self._hearing is _Hearing.SPEAKING and self._silent_ms() >= self._settings.pause_ms:
            return self._pause()
        elif self._hearing is _Hearing.TRAILING and self._silent_ms() >= self._whole_pause_ms():
            self._fall_quiet()
        return None

    def _pause(self) -> SpeechEnded:
        stir_samples = self._stir_samples
        self._fall_quiet()
        if self._silent_ms() < self._settings.gap_ms:
            self._stir_samples = stir_samples
        return SpeechEnded(self._told(self.last_speech_samples))

    def _whole_pause_ms(self) -> int:
        return max(self._settings.pause_ms, self._settings.gap_ms)


LEVEL_SAMPLES, BLOCK_SAMPLES = 500 * SAMPLES_PER_MS, 4 * SAMPLES_PER_MS
SILENT, QUIET, ABOVE = 1 / 50, 1 / 10, 1.5
"""Of speech's level, -34 dB is silence; and, if it is below -20 dB, what is hardly louder than the silence after it."""


def trailing_silence(spoken: Pcm, quiet: Pcm, most_samples: int) -> int:
    """Return how many samples at the end of ``spoken`` are as silent as ``quiet``, which follows, in whole blocks."""
    levels = _levels(spoken)
    loudest, noise = max(levels, default=0.0), max(_levels(quiet), default=0.0)
    threshold = max(SILENT * loudest, ABOVE * noise if noise < QUIET * loudest else 0.0)
    silent = 0
    for level in reversed(levels[max(0, len(levels) - most_samples // BLOCK_SAMPLES) :]):
        if level > threshold:
            break
        silent += BLOCK_SAMPLES
    return silent


def _levels(pcm: Pcm) -> list[float]:
    """Return the root mean square of each block; samples too few for one at the beginning are left out."""
    blocks = pcm[len(pcm) % BLOCK_SAMPLES :].reshape(-1, BLOCK_SAMPLES).astype(np.float32)
    levels: list[float] = np.sqrt((blocks**2).mean(axis=1)).tolist()
    return levels


class Ear:
    """One session's speech detection: any chunking of 16 kHz audio in, speech events out.

    Speech does not begin with the agent's own voice coming back: such a window is as good as silent. ``echo`` tells;
    without it nothing is. Speech that has begun holds the agent, and with it the echo: it is not asked about then.
    """

    TAIL_S = 8

    def __init__(self, detector: SpeechProbability, settings: SpeechSettings, echo: Echo | None = None) -> None:
        self._detector = detector
        self._echo = echo
        self._judged_samples = 0
        self._lingers_samples = getattr(detector, "lingers_ms", 0) * SAMPLES_PER_MS
        self._framer = Framer(detector.window_samples)
        self._segmenter = SpeechSegmenter(settings)
        self.tail = AudioTail(self.TAIL_S * SPEECH_RATE_HZ)

    @property
    def heard_samples(self) -> int:
        """Samples received so far."""
        return self.tail.end_samples

    @property
    def last_speech_samples(self) -> int:
        """Where the speech heard last ended, so far. What follows it and is not judged yet is no silence."""
        return self.heard_samples if self._segmenter.sounding else self._segmenter.last_speech_samples

    @property
    def stirring(self) -> bool:
        """Whether speech may have begun just now, or go on; known within ``min_speech_ms`` or ``gap_ms``."""
        return self._segmenter.stirring

    def press(self) -> SpeechStarted | None:
        """The caller holds a talk button: everything is speech until ``release``. Return its start, unless it had."""
        return self._segmenter.press(self.heard_samples)

    def release(self, *, slipped: bool = False) -> SpeechEnded | None:
        """The button is released: return the end of that speech. What still sounds, up to a pause, starts nothing.

        ``slipped``: it was pressed by mistake, and what was being said goes on.
        """
        return self._segmenter.release(self.heard_samples, slipped=slipped)

    def cut(self) -> SpeechEnded | None:
        """End the speech that goes on, if any, and return its end; more of it is new speech."""
        return self._segmenter.cut(self.heard_samples)

    def push(self, pcm: Pcm) -> list[SpeechStarted | SpeechEnded]:
        """Hear more; return what began or ended. Takes under 1 ms per window."""
        self.tail.push(pcm)
        judged = (self._judge(window) for window in self._framer.push(pcm))
        return [event for event in judged if event is not None]

    def _judge(self, window: Pcm) -> SpeechStarted | SpeechEnded | None:
        self._judged_samples += len(window)
        probability = self._detector.probability(window)
        if self._segmenter.may_begin(probability) and self._is_echo(len(window)):
            probability = 0.0
        return self._segmenter.push(probability, len(window), lambda: self._lingered(window))

    def _lingered(self, window: Pcm) -> int:
        """Return how much of what the detector took for speech before this window was silent."""
        if not self._lingers_samples:
            return 0
        end_samples = self._judged_samples - len(window)
        begin_samples = max(0, end_samples - LEVEL_SAMPLES)
        spoken = self.tail.since(begin_samples)[: end_samples - begin_samples]
        return trailing_silence(spoken, window, self._lingers_samples)

    def _is_echo(self, window_samples: int) -> bool:
        begin = self._judged_samples - HEARD_SAMPLES
        if self._echo is None or begin < 0:
            return False
        heard = self.tail.since(begin)[:HEARD_SAMPLES]
        return self._echo.is_echo(heard, self._judged_samples, window_samples)
