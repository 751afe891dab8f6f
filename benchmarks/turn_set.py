"""Turns with marked pauses, spoken by espeak-ng: what `benchmarks.end_of_turn` judges, beside `benchmarks.people`.

In turns.txt ``|`` is a pause within the turn, and the end of a line its end. Everything random comes from one seed, but
for espeak-ng's own hiss. Half of the sentences, in half of the voices, are for tuning; the others, in other voices, are
held out.
"""

from __future__ import annotations

import random
import re
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, Pcm, silence
from pipeline.resample import Resampler
from pipeline.tts._espeak import WORDS_PER_MINUTE, library

SEED = 6
SHORTEST_MS, LONGEST_MS = 100, 1500
"""Pauses within turns; a short one is as probable as one that is longer by the same factor."""
JUDGED_MS = 100
"""The silence at which an engine is asked, as `TurnSettings.judge_ms` says."""
NOISE = 8
"""Amplitude of what is heard in silence."""
RECORDINGS = Path(__file__).parent.parent / "tests" / "fixtures" / "audio"

VOICES = {"tuned on": ("en-us", "en-gb+f2", "en-gb-scotland+m3"), "held out": ("en-gb", "en-us+f4", "en-029+m5")}

TURNS = (Path(__file__).parent / "turns.txt").read_text().splitlines()


@dataclass(frozen=True, slots=True)
class Item:
    """A silence: ``heard`` is the turn's sound up to it and a little of it, ``words`` what was said by then.

    ``turn`` is the whole of it. ``pause_ms`` is how long the silence lasts; None for the end of the turn.
    """

    turn: str
    heard: Pcm
    words: str
    pause_ms: float | None


def synthesized(half: str) -> list[Item]:
    """Return the silences of one half, in each of its voices. Blocks for seconds."""
    dice = random.Random(f"{SEED} {half}")
    turns = TURNS[0 if half == "tuned on" else 1 :: 2]
    return [item for voice in VOICES[half] for turn in turns for item in _spoken(turn, voice, dice)]


def _spoken(turn: str, voice: str, dice: random.Random) -> Iterator[Item]:
    """A pause that is not written is spoken as if it were, or like an end, by the toss of a coin."""
    speed = dice.uniform(0.85, 1.15)
    parts = [part.strip() for part in turn.split("|")]
    sound, words = silence(0), ""
    for part in parts:
        is_last = part is parts[-1]
        text = part if part[-1] in ".,?" else part + dice.choice(",.")
        lasts_ms = pause_ms(dice.random())
        words = f"{words} {part}".strip()
        sound = np.concatenate([sound, say(text, voice, speed)])
        yield Item(turn, _with_silence(sound), words, None if is_last else lasts_ms)
        sound = np.concatenate([sound, silence(round(lasts_ms * SAMPLES_PER_MS))])


def pause_ms(share: float) -> float:
    """Return a length of a pause: the shortest for 0, the longest for 1, and by equal factors between."""
    return SHORTEST_MS * float((LONGEST_MS / SHORTEST_MS) ** share)


def say(text: str, voice: str, speed: float) -> Pcm:
    """Return a text as a voice of espeak-ng speaks it, without the silence around it. Blocks."""
    espeak = library()
    identifier = espeak.find(voice)
    if identifier is None:
        raise LookupError(f"espeak-ng has no voice {voice!r}")
    pieces: list[Pcm] = []

    def keep(piece: Pcm) -> bool:
        pieces.append(piece)
        return True

    espeak.speak(text, identifier, round(WORDS_PER_MINUTE * speed), keep)
    resampler = Resampler(espeak.rate_hz, SPEECH_RATE_HZ)
    return trimmed(np.concatenate([*(resampler.push(piece) for piece in pieces), resampler.flush()]))


def trimmed(pcm: Pcm) -> Pcm:
    """Return it from the first to the last 10 ms that are not nearly silent."""
    window = 10 * SAMPLES_PER_MS
    windows = np.abs(pcm[: len(pcm) // window * window].reshape(-1, window).astype(np.int32)).max(axis=1)
    loud = np.flatnonzero(windows > windows.max() / 50)
    return pcm[loud[0] * window : (loud[-1] + 1) * window]


def _with_silence(sound: Pcm) -> Pcm:
    heard = np.concatenate([sound, silence(JUDGED_MS * SAMPLES_PER_MS)])
    noisy: Pcm = np.clip(heard.astype(np.int32) + hiss(len(heard)), -32767, 32767).astype(np.int16)
    return noisy


def hiss(samples: int) -> Pcm:
    """Return so much of what is heard in silence."""
    return np.random.default_rng(SEED).integers(-NOISE, NOISE + 1, samples).astype(np.int16)


def read(path: Path) -> Pcm:
    """Return a recording as it is."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def plain(words: str) -> str:
    """Return words as a recognizer without punctuation writes them."""
    return re.sub(r"[^\w' ]", "", words).lower()


def pauses(items: Sequence[Item]) -> list[Item]:
    """Return the silences within turns."""
    return [item for item in items if item.pause_ms is not None]


def ends(items: Sequence[Item]) -> list[Item]:
    """Return the silences at turns' ends."""
    return [item for item in items if item.pause_ms is None]
