"""How a voice ends: it falls at the end of what it says, and stays up or rises within a list or a thought.

Gravano and Hirschberg, "Turn-taking cues in task-oriented dialogue" (Computer Speech and Language, 2011): turns end in
a fall or a high rise, holds on a level. Rises are questions', which their words tell better.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, Pcm
from pipeline.pitch import pitch_hz

HEARD_SAMPLES: Final = 3 * SPEECH_RATE_HZ // 2
END_FRAMES: Final = 4
"""Voiced frames of 16 ms: the last syllable."""
BEFORE_FRAMES: Final = slice(-12, -8)
LEAST_FRAMES: Final = 16
MOST_SEMITONES: Final = 2.5
"""More says no more, and may be a mistake of an octave."""


def final_rise_semitones(sound: Pcm) -> float:
    """Return how far the pitch rose at the end of what was said, negative if it fell; 0 of too little voice.

    Blocks: 3 ms.
    """
    pitch = pitch_hz(sound[-HEARD_SAMPLES:])
    semitones = 12.0 * np.log2(pitch[~np.isnan(pitch)])
    if len(semitones) < LEAST_FRAMES:
        return 0.0
    rise = semitones[-END_FRAMES:].mean() - semitones[BEFORE_FRAMES].mean()
    return float(np.clip(rise, -MOST_SEMITONES, MOST_SEMITONES))
