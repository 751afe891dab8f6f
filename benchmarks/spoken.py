"""Turns as a caller speaks them, one after the other, and who recognizes their words.

They are those of `benchmarks.turn_set`, or what recorded people say (`benchmarks.people`) with more pauses than theirs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.audio import SAMPLES_PER_MS, AudioFrame, Pcm, silence
from pipeline.engines import VoiceActivityDetector
from pipeline.events import Transcript

from .people import FRAME_MS, FRAME_SAMPLES, Recording
from .turn_set import JUDGED_MS, TURNS, Item, hiss, pause_ms

PAUSE_MS = 2800
"""Between turns: long enough for the longest wait and all of the answer."""
PARTIAL_MS = 200
"""How often a streaming recognizer has another look."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, and the sample at which half of it has sounded: then a recognizer knows it."""

    text: str
    at_samples: int


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a turn begins and ends in what a caller says, to the sample, how often they pause in it, and its words."""

    begin_samples: int
    end_samples: int
    pauses: int
    words: Sequence[Word]

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class Speech:
    """What a caller says in one session."""

    pcm: Pcm
    turns: Sequence[Turn]


def speeches(
    items: Sequence[Item], per_session: int, dice: random.Random, quiet: Callable[[int], Pcm] = hiss
) -> list[Speech]:
    """Return the turns in random order, ``per_session`` in each, at random phases of frames and windows.

    ``quiet`` makes so many samples of what is heard between them.
    """
    turns = _turns(items)
    dice.shuffle(turns)
    return [_speech(turns[i : i + per_session], dice, quiet) for i in range(0, len(turns), per_session)]


def readings(one: Recording, count: int, per_session: int, dice: random.Random) -> list[Speech]:
    """Return a recording so many times, as turns of somebody who stays in that room.

    Each has its own pauses as they were, and has others, or theirs has another length, at as many of its places as one
    of the turns of turns.txt has pauses; places, lengths and that turn are drawn.
    """
    return speeches([item for _ in range(count) for item in _reading(one, dice)], per_session, dice, one.room)


def _reading(one: Recording, dice: random.Random) -> Iterator[Item]:
    places = [*one.paused, *one.cut]
    drawn = dice.sample(places, min(len(places), dice.choice(TURNS).count("|")))
    sound, begin = silence(0), one.begin
    for place in sorted({*one.paused, *drawn}, key=lambda place: place.end):
        if place in drawn:
            spoken, lasts_ms = one.sound(begin, place.end), pause_ms(dice.random())
            paused = one.room(round(lasts_ms * SAMPLES_PER_MS))
        else:
            spoken = one.pcm[begin * FRAME_SAMPLES : place.end * FRAME_SAMPLES]
            paused = one.pcm[place.end * FRAME_SAMPLES : place.resumes * FRAME_SAMPLES]
            lasts_ms = float((place.resumes - place.end) * FRAME_MS)
        sound = np.concatenate([sound, spoken])
        yield Item(one.text, _judged(one, sound), one.said(place), lasts_ms)
        sound, begin = np.concatenate([sound, paused]), place.resumes
    whole = np.concatenate([sound, one.sound(begin, one.last.end)])
    yield Item(one.text, _judged(one, whole), one.text, None)


def _judged(one: Recording, sound: Pcm) -> Pcm:
    return np.concatenate([sound, one.room(JUDGED_MS * SAMPLES_PER_MS)])


def _turns(items: Sequence[Item]) -> list[list[Item]]:
    turns: list[list[Item]] = [[]]
    for item in items:
        turns[-1].append(item)
        if item.pause_ms is None:
            turns.append([])
    return turns[:-1]


def _speech(turns: Sequence[Sequence[Item]], dice: random.Random, quiet: Callable[[int], Pcm]) -> Speech:
    pieces, said, at_samples = list[Pcm](), list[Turn](), 0
    for items in turns:
        pause = quiet(PAUSE_MS * SAMPLES_PER_MS + dice.randrange(32 * SAMPLES_PER_MS))
        whole = items[-1].heard[: -JUDGED_MS * SAMPLES_PER_MS]
        at_samples += len(pause)
        said.append(Turn(at_samples, at_samples + len(whole), len(items) - 1, _words(items, at_samples)))
        at_samples += len(whole)
        pieces += [pause, whole]
    return Speech(np.concatenate([*pieces, quiet(PAUSE_MS * SAMPLES_PER_MS)]), said)


def _words(items: Sequence[Item], begin_samples: int) -> list[Word]:
    """Spread each part's words evenly over its sound."""
    words, begin, before = list[Word](), 0, 0
    for item in items:
        end, said = len(item.heard) - JUDGED_MS * SAMPLES_PER_MS, item.words.split()
        part = said[before:]
        words += [
            Word(text, begin_samples + begin + round((i + 0.5) * (end - begin) / len(part)))
            for i, text in enumerate(part)
        ]
        begin, before = end + round((item.pause_ms or 0.0) * SAMPLES_PER_MS), len(said)
    return words


@dataclass
class Recognizer:
    """Knows the words that were said by then, ``delay_s`` ago. Notes when it was asked about pauses."""

    words: Sequence[Word]
    delay_s: float
    write: Callable[[str], str]
    """How it writes them: with marks, or without."""
    hears_pauses: bool = True
    pauses_s: list[float] = field(default_factory=list)

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Yield words every so often, at pauses and at the end."""
        begin_samples, end_samples, looked_samples = None, 0, 0
        async for frame in frames:
            begin_samples = frame.pts if begin_samples is None else begin_samples
            end_samples = frame.pts + len(frame.pcm)
            if not len(frame.pcm):
                self.pauses_s.append(asyncio.get_running_loop().time())
                await asyncio.sleep(self.delay_s)
                yield Transcript(self._said(begin_samples, end_samples), False, language, frame.pts)
            elif end_samples - looked_samples >= PARTIAL_MS * SAMPLES_PER_MS:
                looked_samples = end_samples
                late_samples = round(self.delay_s * 1000) * SAMPLES_PER_MS
                yield Transcript(self._said(begin_samples, end_samples - late_samples), False, language)
        await asyncio.sleep(self.delay_s)
        yield Transcript(self._said(begin_samples or 0, end_samples), True, language)

    def _said(self, begin_samples: int, end_samples: int) -> str:
        return self.write(" ".join(w.text for w in self.words if begin_samples <= w.at_samples < end_samples))


@dataclass
class Replayed:
    """What a detector said of this sound, window by window: it hears the same whatever the server does."""

    window_samples: int
    lingers_ms: int
    probabilities: Sequence[float]
    windows: int = 0

    def open(self) -> Replayed:
        """Begin again."""
        return Replayed(self.window_samples, self.lingers_ms, self.probabilities)

    def probability(self, window: Pcm) -> float:
        """Return that of the next window."""
        self.windows += 1
        return self.probabilities[self.windows - 1]


def listened(detector: VoiceActivityDetector, pcm: Pcm) -> Replayed:
    """Let a detector hear it once. Blocks."""
    ear = detector.open()
    windows = pcm[: len(pcm) // ear.window_samples * ear.window_samples].reshape(-1, ear.window_samples)
    lingers_ms = getattr(ear, "lingers_ms", 0)
    return Replayed(ear.window_samples, lingers_ms, [ear.probability(window) for window in windows])
