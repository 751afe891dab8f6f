"""How a session listens, and how it does when a client brings the numbers of a loudness detector."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .audio import SAMPLES_PER_MS, SPEECH_RATE_HZ
from .reply import Patience
from .speech import SpeechSettings
from .speech_detector import WINDOWS_PER_S, DetectorSettings
from .turn_settings import TurnSettings

WINDOW_MS = 1000 // WINDOWS_PER_S


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session listens, takes turns and waits for its engines."""

    speech: SpeechSettings = field(default_factory=SpeechSettings)
    turns: TurnSettings = field(default_factory=TurnSettings)
    patience: Patience = field(default_factory=Patience)


def session_settings_for(detector: DetectorSettings, base: SessionSettings) -> SessionSettings:
    """Return the settings with which a session hears turns where an `AudioSpeechDetector` cuts recordings.

    To go with ``EnergyVad(detector.energy_threshold)``. A turn begins at the first loud window, once the loud part is
    ``min_speech_duration`` long; it ends after ``max_silence_duration`` without one, whatever an end-of-turn engine
    thinks, or when it is ``max_recording_duration`` long. That its answer is prepared in an earlier pause stays.
    """
    silence_ms = max(WINDOW_MS, _windows_ms(math.ceil, detector.max_silence_duration))
    speech = replace(
        base.speech,
        min_speech_ms=_windows_ms(math.ceil, detector.min_speech_duration),
        pause_ms=min(base.speech.pause_ms, silence_ms // 2),
        gap_ms=silence_ms,
    )
    turns = replace(
        base.turns,
        endpoint_min_ms=silence_ms,
        endpoint_ms=silence_ms,
        endpoint_max_ms=silence_ms,
        max_turn_ms=max(WINDOW_MS, _windows_ms(math.floor, detector.max_recording_duration)),
    )
    return replace(base, speech=speech, turns=turns)


def _windows_ms(whole: Callable[[float], int], duration_s: float) -> int:
    """Return the duration as so many of the detector's windows, counted in samples as it does."""
    return whole(round(duration_s * SPEECH_RATE_HZ) / SAMPLES_PER_MS / WINDOW_MS) * WINDOW_MS
