"""Speech is what is loud: the peak of 10 ms against a threshold. For quiet rooms and machines without onnxruntime.

Setting: ``VOCAL_ENERGY_THRESHOLD`` (0 to 1 of full scale).
"""

from __future__ import annotations

from pipeline.audio import SPEECH_RATE_HZ, Pcm
from pipeline.engines import Settings, Usable, number
from pipeline.speech_detector import WINDOWS_PER_S, is_loud

DEFAULT_THRESHOLD = 0.03
"""Above a quiet room's noise, below ordinary speech at an ordinary distance."""


class EnergyVad:
    """Keeps no state; one object serves all sessions."""

    def __init__(self, threshold: float = DEFAULT_THRESHOLD) -> None:
        self.window_samples = SPEECH_RATE_HZ // WINDOWS_PER_S
        self._threshold = threshold

    def open(self) -> EnergyVad:
        """Return itself."""
        return self

    def probability(self, window: Pcm) -> float:
        """Return 1.0 for a window whose peak lies above the threshold, else 0.0."""
        return float(is_loud(window, self._threshold))


def describe(settings: Settings) -> Usable:
    """Needs nothing; takes any noise for speech."""
    return Usable(10, "peak level against a threshold")


def create(settings: Settings) -> EnergyVad:
    """Read the threshold from the settings."""
    return EnergyVad(number(settings, "VOCAL_ENERGY_THRESHOLD", DEFAULT_THRESHOLD))
