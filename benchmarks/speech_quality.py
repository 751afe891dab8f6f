"""How much of speech is left, by the two measures that are usual: PESQ (ITU-T P.862.2, wideband) and STOI."""

from __future__ import annotations

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, Pcm

INSTALL = "pip install pesq pystoi"
MAX_DELAY_S = 0.050


class Missing(Exception):
    """A library that measures is not installed; the message says what to do."""


def quality(heard: Pcm, spoken: Pcm, delay_samples: int) -> tuple[float, float]:
    """Return PESQ (1.0 to 4.64) and STOI (0 to 1) of what was heard, which is late by ``delay_samples``."""
    try:
        from pesq import pesq
        from pystoi import stoi
    except ImportError as error:
        raise Missing(f"{error.name} is not installed, which measures the speech: {INSTALL}") from error
    aligned = heard[delay_samples : delay_samples + len(spoken)]
    aligned = np.pad(aligned, (0, len(spoken) - len(aligned)))
    return float(pesq(SPEECH_RATE_HZ, spoken, aligned, "wb")), float(stoi(spoken, aligned, SPEECH_RATE_HZ))


def delay(heard: Pcm, spoken: Pcm) -> int:
    """Return by how many samples what was heard resembles what was spoken most: a codec's own delay."""
    window = min(len(heard), len(spoken)) - 1
    size = 1 << (2 * window).bit_length()
    spectra = np.fft.rfft(heard[:window], size) * np.fft.rfft(spoken[:window], size).conj()
    likeness = np.fft.irfft(spectra, size)[: int(MAX_DELAY_S * SPEECH_RATE_HZ)]
    return int(np.argmax(likeness))
