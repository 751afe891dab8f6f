"""Music of several kinds, made where it is needed: harmonics, envelopes, chords, drums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.audio import SPEECH_RATE_HZ, Pcm, to_int16

Sound = NDArray[np.float64]

SECONDS = 8
PIANO = (1.0, 0.6, 0.35, 0.2, 0.12, 0.08)
ORGAN = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2)
CHORDS = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (261.6, 329.6, 392.0), (196.0, 246.9, 293.7))
SCALE = (440.0, 494.0, 523.0, 587.0, 659.0, 698.0, 784.0, 880.0)
BASS = (55.0, 65.4, 82.4, 73.4)


def times(seconds: float) -> Sound:
    """Return the time of each sample."""
    return np.arange(round(seconds * SPEECH_RATE_HZ)) / SPEECH_RATE_HZ


def note(hz: float, seconds: float, harmonics: tuple[float, ...], decay: float = 0.0) -> Sound:
    """Return a tone with overtones that begins within 10 ms and dies away."""
    time_s = times(seconds)
    waves = [level * np.sin(2 * np.pi * hz * n * time_s) for n, level in enumerate(harmonics, 1)]
    sound: Sound = np.sum(waves, axis=0) * np.exp(-decay * time_s) * np.minimum(1.0, time_s / 0.01)
    return sound


def sung(hz: float, seconds: float) -> Sound:
    """Return a bowed note: sawtooth-like, with vibrato, swelling and fading."""
    time_s = times(seconds)
    phase = 2 * np.pi * np.cumsum(hz * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * time_s))) / SPEECH_RATE_HZ
    sound: Sound = np.sum([np.sin(n * phase) / n for n in range(1, 7)], axis=0)
    return sound * np.minimum(1.0, time_s / 0.03) * np.minimum(1.0, (seconds - time_s) / 0.05)


def played(*notes: tuple[float, Sound]) -> Sound:
    """Mix sounds, each from its second on."""
    mix: Sound = np.zeros(SECONDS * SPEECH_RATE_HZ)
    for at_s, sound in notes:
        begin = round(at_s * SPEECH_RATE_HZ)
        mix[begin : begin + len(sound)] += sound[: max(0, len(mix) - begin)]
    return mix


def drums(chance: np.random.Generator, seconds: float, decay: float) -> Sound:
    """Return a burst of noise."""
    return chance.standard_normal(round(seconds * SPEECH_RATE_HZ)) * np.exp(-decay * times(seconds))


def piano() -> Sound:
    """Play chords, twice a second."""
    beats = range(2 * SECONDS)
    return played(*((beat / 2, note(hz, 1.2, PIANO, 2.5)) for beat in beats for hz in CHORDS[beat // 2 % 4]))


def band() -> Sound:
    """Play chords with a bass drum, a snare and a hi-hat."""
    chance = np.random.default_rng(3)
    kick = np.sin(2 * np.pi * 55 * times(0.25)) * np.exp(-12 * times(0.25))
    hats = [(beat / 4, 0.4 * drums(chance, 0.1, 40.0)) for beat in range(4 * SECONDS)]
    kicks = [(float(beat), 2.0 * kick) for beat in range(SECONDS)]
    snares = [(beat + 0.5, drums(chance, 0.2, 18.0)) for beat in range(SECONDS)]
    return 0.5 * piano() + played(*hats, *kicks, *snares)


def organ() -> Sound:
    """Hold chords for two seconds each, with a slow swell."""
    held = played(*((2.0 * bar, note(hz, 2.0, ORGAN)) for bar in range(SECONDS // 2) for hz in CHORDS[bar % 4]))
    return held * (1 + 0.9 * np.sin(2 * np.pi * 0.5 * times(SECONDS)))


def violin() -> Sound:
    """Play a melody of one voice."""
    chance = np.random.default_rng(5)
    return played(*((0.3 * n, sung(SCALE[chance.integers(8)], 0.3)) for n in range(int(SECONDS / 0.3))))


def bass() -> Sound:
    """Play a bass line with a click on the off-beats: of all these the likest to a voice."""
    chance = np.random.default_rng(7)
    clicks = [(beat / 2 + 0.25, 0.5 * drums(chance, 0.05, 60.0)) for beat in range(2 * SECONDS)]
    return played(*((beat / 4, note(BASS[beat // 4 % 4], 0.25, ORGAN, 6.0)) for beat in range(4 * SECONDS)), *clicks)


KINDS: dict[str, Callable[[], Sound]] = {
    "piano": piano,
    "band": band,
    "organ": organ,
    "violin": violin,
    "bass": bass,
}


def music(kind: str) -> Pcm:
    """Return 8 s of one of `KINDS`, at 16 kHz and as loud as recordings are."""
    sound = KINDS[kind]()
    return to_int16(0.7 * sound / np.abs(sound).max())
