"""Clicks, heard in a tone that is low enough for anything sudden to stand out."""

from __future__ import annotations

import numpy as np

from pipeline.audio import Pcm

TONE_HZ = 150
LOUD = 8_000
"""The tone's loudest sample."""
STEEPER, SHARPER = 1.3, 2.0
"""How much steeper than the tone, and how much sharper its bend, a change of level without corners may be."""
ROUNDING = 4


def swelling_tone(samples: int, rate_hz: int = 24_000) -> Pcm:
    """Return a tone that swells and dies away, so that no part of it is like another and neither end is a step."""
    at, edge = np.arange(samples), rate_hz // 50
    swell = np.interp(at, [0, edge, samples // 2, samples - edge, samples - 1], [0, 0.5, 1, 0.6, 0])
    tone: Pcm = (LOUD * swell * np.sin(2 * np.pi * TONE_HZ / rate_hz * at)).round().astype(np.int16)
    return tone


def clicks(pcm: np.ndarray, rate_hz: int = 24_000) -> bool:
    """Tell whether anything in the tone changes faster than the tone itself."""
    turn = 2 * np.pi * TONE_HZ / rate_hz
    steps = np.diff(pcm.astype(int))
    step, bend = LOUD * turn * STEEPER, LOUD * turn**2 * SHARPER + ROUNDING
    return bool(np.abs(steps).max() > step or np.abs(np.diff(steps)).max() > bend)
