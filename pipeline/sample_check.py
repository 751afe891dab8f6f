"""What a voice sample must be, and how it is made ready: enough speech, one voice, nothing else, at one level."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .audio import SPEECH_RATE_HZ, VOICE_RATE_HZ, Framer, Pcm, to_float32, to_int16
from .errors import EngineUnavailable, ProtocolError
from .pitch import two_voices_hz
from .resample import Resampler
from .vad import silero

log = logging.getLogger(__name__)

Windows = NDArray[np.bool_]
"""Of each `WINDOW_SAMPLES`: whether somebody speaks."""

WINDOW_SAMPLES: Final = silero.WINDOW_SAMPLES * VOICE_RATE_HZ // SPEECH_RATE_HZ
WINDOW_S: Final = WINDOW_SAMPLES / VOICE_RATE_HZ

LOUD_LEAST_S: Final = 1.5
LOUD_FROM_DBFS: Final = -45.0
"""Level of a window, from which it may be speech: a quiet voice has -35, a good room's noise -60."""
VARIES_FROM_DB: Final = 6.0
"""Between the loudest and the quietest tenth of it: speech has 20 and more, tones, hum and noise under 3."""
FULL_SCALE_FROM: Final = 29_000
"""-1 dBFS: converting its rate rounds the flat tops of what was clipped."""
CLIPPED_FROM: Final = 0.03
"""Share of samples there: speech as loud as fits has 0.0001, driven 12 dB further 0.03."""

SPEECH_LEAST_S: Final = 2.5
"""Of what a detector hears of 3 s of speech: it leaves out breath and the soft ends of words."""
SOME_SPEECH_S: Final = 0.5
"""Music and noise have less: a drum or a bass may pass for speech for 0.1 s."""
SPEECH_FROM: Final = 0.5
PAUSE_MAX_S: Final = 0.5
"""Between words, where it counts as speech."""

MARGIN_S: Final = 0.15
"""What is kept before the first and after the last word."""
LEVEL_DBFS: Final = -20.0
"""Of the speech in what is kept: between what a close and a distant microphone give."""
PEAK_DBFS: Final = -3.0


class SampleCheck:
    """One for each thread that takes samples. The detector is loaded with the first."""

    def __init__(self) -> None:
        self._detector: silero.SileroVad | None = None
        self._detector_wanted = True

    def prepare(self, pcm: Pcm, least_s: float, param: str) -> Pcm:
        """Return what is kept of a sample (24 kHz): trimmed, its speech at one level.

        Raises ProtocolError (422, ``param``) that says why no voice can be cloned from it and what to do. Blocks: 0.6 s
        for 30 s. Without a detector, which is logged, levels alone decide.
        """
        levels = _levels_dbfs(pcm)
        why_not = _fault_of_levels(pcm, levels, least_s)
        is_speech = levels >= LOUD_FROM_DBFS
        if why_not is None and (detector := self._detect()) is not None:
            speech = _at_speech_rate(pcm)
            is_speech = _spoken(detector, speech)[: len(levels)]
            why_not = _fault_of_speech(speech, is_speech)
        if why_not is not None:
            raise ProtocolError(f"the voice sample {why_not}", param=param, status=422)
        return _ready(pcm, is_speech, round(least_s * VOICE_RATE_HZ))

    def _detect(self) -> silero.SileroVad | None:
        if self._detector_wanted:
            self._detector_wanted = False
            try:
                self._detector = silero.create({})
            except EngineUnavailable as error:
                log.warning("voice samples are judged by their loudness alone, for want of a detector: %s", error)
        return self._detector


def _levels_dbfs(pcm: Pcm) -> NDArray[np.float32]:
    windows = to_float32(pcm[: len(pcm) // WINDOW_SAMPLES * WINDOW_SAMPLES]).reshape(-1, WINDOW_SAMPLES)
    levels: NDArray[np.float32] = 10.0 * np.log10(np.square(windows).mean(axis=1) + 1e-10)
    return levels


def _fault_of_levels(pcm: Pcm, levels_dbfs: NDArray[np.float32], least_s: float) -> str | None:
    duration_s = len(pcm) / VOICE_RATE_HZ
    if duration_s < least_s:
        return f"has {duration_s:.2f} s: send at least {least_s:g} s of speech"
    loud_s = float(np.count_nonzero(levels_dbfs >= LOUD_FROM_DBFS)) * WINDOW_S
    if loud_s == 0.0:
        return "is silent: record it again, closer to the microphone"
    if loud_s < LOUD_LEAST_S:
        return f"is loud enough for {loud_s:.1f} s only: send at least {least_s:g} s of clear speech"
    if np.count_nonzero(np.abs(pcm.astype(np.int32)) >= FULL_SCALE_FROM) > CLIPPED_FROM * len(pcm):
        return "is overdriven: record it again with less gain"
    if np.percentile(levels_dbfs, 90) - np.percentile(levels_dbfs, 10) < VARIES_FROM_DB:
        return "is a steady sound and no speech: send a recording of somebody speaking"
    return None


def _at_speech_rate(pcm: Pcm) -> Pcm:
    resampler = Resampler(VOICE_RATE_HZ, SPEECH_RATE_HZ)
    return np.concatenate([resampler.push(pcm), resampler.flush()])


def _spoken(detector: silero.SileroVad, speech: Pcm) -> Windows:
    state = detector.open()
    windows = Framer(state.window_samples).push(speech)
    return np.array([state.probability(window) >= SPEECH_FROM for window in windows])


def _fault_of_speech(speech: Pcm, is_speech: Windows) -> str | None:
    if np.count_nonzero(is_speech) * WINDOW_S < SOME_SPEECH_S:
        return "holds music, noise or other sound, but no speech: send somebody speaking, and nothing else"
    spoken_s = np.count_nonzero(_without_pauses(is_speech)) * WINDOW_S
    if spoken_s < SPEECH_LEAST_S:
        return f"has {spoken_s:.1f} s of speech: send 3 to 30 s of somebody speaking"
    if (voices := two_voices_hz(speech, is_speech, silero.WINDOW_SAMPLES)) is not None:
        low_hz, high_hz = voices
        return f"has two voices, at {low_hz:.0f} and at {high_hz:.0f} Hz: send one person speaking alone"
    return None


def _without_pauses(is_speech: Windows) -> Windows:
    """Count the short pauses between words as speech."""
    spoken = np.flatnonzero(is_speech)
    filled = is_speech.copy()
    for last, following in pairwise(spoken):
        if (following - last - 1) * WINDOW_S <= PAUSE_MAX_S:
            filled[last:following] = True
    return filled


def _ready(pcm: Pcm, is_speech: Windows, least_samples: int) -> Pcm:
    """Trim it to its speech and a margin; bring that speech to one level, as far as its peaks allow.

    It is never trimmed to less than a sample must have, or it could not be sent to another server.
    """
    spoken = np.flatnonzero(is_speech)
    margin_samples = round(MARGIN_S * VOICE_RATE_HZ)
    first = max(0, int(spoken[0]) * WINDOW_SAMPLES - margin_samples)
    last = max((int(spoken[-1]) + 1) * WINDOW_SAMPLES + margin_samples, first + least_samples)
    first = min(first, max(0, len(pcm) - least_samples))
    samples = to_float32(pcm)
    power = np.square(samples[: len(is_speech) * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)[is_speech]).mean()
    kept = samples[first:last]
    gain = min(_amplitude(LEVEL_DBFS) / float(np.sqrt(power)), _amplitude(PEAK_DBFS) / float(np.abs(kept).max()))
    return to_int16(kept * gain)


def _amplitude(dbfs: float) -> float:
    return float(10.0 ** (dbfs / 20.0))
