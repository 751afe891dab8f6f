"""What recorded people say, and where they pause or might: the half of `benchmarks.end_of_turn` that nobody wrote.

people.txt has the words of each recording, with the marks of the book or speech that it is from; a script finds the
places. PocketSphinx is told the words and says when each is spoken (forced alignment); a place is taken only where the
level falls there, too. Nothing was tuned on any of it.

- *Ends*: of recordings that end in a full stop. Of the others the sentence goes on in its source, behind a pause (at
  which they were cut out of it), so the end of such a recording is a pause within a turn.
- *Paused*: where the speaker fell silent for ``PAUSE_MS`` or more, and those ends. They sound as pauses do.
- *Cut*: after any other word behind which the level falls, as if the speaker stopped there to think. Who does so draws
  the word out or says "uh"; here one word runs into the next, and that is not how a hesitation sounds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, Pcm

from .turn_set import JUDGED_MS, RECORDINGS, SEED, Item, pause_ms, plain, read

TEXTS = dict(line.split("\t") for line in (Path(__file__).parent / "people.txt").read_text().splitlines())
"""File name to what is said in it, with marks."""

FRAME_MS = 10
"""The aligner's, and of which levels are taken."""
FRAME_SAMPLES = FRAME_MS * SAMPLES_PER_MS
FADE_MS = 5
PAUSE_MS = 200
"""From here on quiet is a pause: the closures of one stop and the next ("printed book") last nearly as long."""
QUIET_DB = 22.0
"""Quiet is so far below a recording's loud parts."""
DIP_DB = 15.0
"""Between two words there is a place where the level is so far below both."""
NEAR = 50 // FRAME_MS
"""The aligner and the level agree where they are no farther apart."""
LENGTHS = 10
"""Pauses tried at each place, from short to long."""

Levels = NDArray[np.float64]


@dataclass(slots=True)
class People:
    """What is said up to each place; the pauses have no length yet, which is given as 0."""

    ends: list[Item] = field(default_factory=list)
    paused: list[Item] = field(default_factory=list)
    cut: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody falls silent and goes on, in frames: the same where there was no pause. How many words before."""

    end: int
    resumes: int
    words: int


@dataclass(frozen=True, slots=True)
class Recording:
    """What one recording says, and the places within it."""

    text: str
    pcm: Pcm
    levels_db: Levels
    begin: int
    paused: Sequence[Place]
    cut: Sequence[Place]
    last: Place

    @property
    def is_whole(self) -> bool:
        """Whether it ends where its sentence does."""
        return self.text.endswith(".")

    def sound(self, begin: int, end: int) -> Pcm:
        """Return these frames, without a click at their end."""
        return _faded(self.pcm[begin * FRAME_SAMPLES : end * FRAME_SAMPLES])

    def said(self, place: Place) -> str:
        """Return the words before a place."""
        return " ".join(self.text.split()[: place.words])

    def room(self, samples: int) -> Pcm:
        """Return a silence as it sounds where this was recorded: noise like its quietest frames.

        It has their spectrum and level, and joins itself. Digital silence is what no microphone sends; behind white
        noise Silero takes 100 ms longer, and more, to find it.
        """
        order = self.levels_db[self.levels_db > 0].argsort()[: max(1, len(self.levels_db) // 20)]
        quiet = _frames(self.pcm)[self.levels_db > 0][order]
        power = (np.abs(np.fft.rfft(quiet * np.hanning(FRAME_SAMPLES))) ** 2).mean(axis=0)
        shape = np.sqrt(np.interp(np.linspace(0, 1, samples // 2 + 1), np.linspace(0, 1, len(power)), power))
        dice = np.random.default_rng(SEED)
        noise = np.fft.irfft(shape * np.exp(2j * np.pi * dice.random(len(shape))), samples)
        room: Pcm = (noise * np.sqrt((quiet**2).mean() / (noise**2).mean())).astype(np.int16)
        return room


@dataclass(frozen=True, slots=True)
class Word:
    """Where a word lies, in frames; its end is the first frame behind it."""

    begin: int
    end: int

    @property
    def middle(self) -> int:
        """Half of it."""
        return (self.begin + self.end) // 2


def people(names: Iterable[str] = TEXTS) -> People:
    """Return the places of these recordings. Blocks for some tenths of a second each."""
    found = People()
    for one in map(recording, names):
        found.paused += [_item(one, place, 0.0) for place in one.paused]
        found.cut += [_item(one, place, 0.0) for place in one.cut]
        (found.ends if one.is_whole else found.paused).append(_item(one, one.last, None if one.is_whole else 0.0))
    return found


def _item(one: Recording, place: Place, pause_ms: float | None) -> Item:
    heard = np.concatenate([one.sound(one.begin, place.end), one.room(JUDGED_MS * SAMPLES_PER_MS)])
    return Item(one.text, heard, one.said(place), pause_ms)


def readings(places: Sequence[Item], dice: random.Random) -> list[Item]:
    """Return each place ``LENGTHS`` times; pauses with lengths that are drawn from as many equal parts of the scale."""
    return [_lasting(place, (part + dice.random()) / LENGTHS) for place in places for part in range(LENGTHS)]


def _lasting(place: Item, share: float) -> Item:
    return place if place.pause_ms is None else replace(place, pause_ms=pause_ms(share))


def recording(name: str) -> Recording:
    """Find the places of a recording. Blocks."""
    pcm, text = read(RECORDINGS / name), TEXTS[name]
    levels_db = _levels_db(pcm)
    quiet_db = float(np.percentile(levels_db, 95)) - QUIET_DB
    loud, spoken = levels_db >= quiet_db, aligned(pcm, plain(text))
    paused, cut = list[Place](), list[Place]()
    for count, (word, following) in enumerate(pairwise(spoken), 1):
        pause, dip = _pause(levels_db, quiet_db, word, following), _dip(levels_db, quiet_db, word, following)
        if pause is not None:
            paused.append(Place(*pause, count))
        elif dip is not None:
            cut.append(Place(dip, dip, count))
    end = _loud_before(loud, spoken[-1].end + NEAR)
    begin = _first_loud(loud, spoken[0].begin - NEAR)
    return Recording(text, pcm, levels_db, begin, paused, cut, Place(end, end, len(spoken)))


def _first_loud(loud: NDArray[np.bool_], frame: int) -> int:
    """Return the first loud frame from this one on."""
    return max(0, frame) + int(loud[max(0, frame) :].argmax())


def _loud_before(loud: NDArray[np.bool_], frame: int) -> int:
    """Return the end of the last loud frame before this one."""
    return min(frame, len(loud)) - int(loud[:frame][::-1].argmax())


def _faded(sound: Pcm) -> Pcm:
    """Return it without a click at its end."""
    gain = np.minimum(1.0, np.arange(len(sound), 0, -1) / (FADE_MS * SAMPLES_PER_MS))
    return (sound * gain).astype(np.int16)


def _frames(pcm: Pcm) -> NDArray[np.float64]:
    return pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES).astype(np.float64)


def _levels_db(pcm: Pcm) -> Levels:
    levels: Levels = 10 * np.log10((_frames(pcm) ** 2).mean(axis=1) + 1)
    return levels


def aligned(pcm: Pcm, words: str) -> list[Word]:
    """Return where each word is spoken. Blocks. Raises LookupError for unknown words, and for too little sound."""
    from pocketsphinx import Decoder

    decoder = Decoder(lm=None, samprate=SPEECH_RATE_HZ, loglevel="FATAL")
    try:
        decoder.set_align_text(words)
    except RuntimeError as error:
        raise LookupError(f"PocketSphinx's dictionary lacks one of the words of {words!r}") from error
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    spoken = [
        (segment.word.partition("(")[0], Word(segment.start_frame, segment.end_frame + 1))
        for segment in decoder.seg() or ()
        if not segment.word.startswith(("<", "["))
    ]
    if [word for word, _ in spoken] != words.split():
        raise LookupError(f"PocketSphinx cannot find {words!r} in so much sound")
    return [where for _, where in spoken]


def _pause(levels_db: Levels, quiet_db: float, word: Word, following: Word) -> tuple[int, int] | None:
    """Return where a pause between two words begins and ends, if they are parted by one."""
    runs = _quiet_runs(levels_db[word.middle : following.middle] < quiet_db, word.middle)
    begin, end = max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
    agree = begin <= following.begin + NEAR and end >= word.end - NEAR
    return (begin, end) if agree and (end - begin) * FRAME_MS >= PAUSE_MS else None


def _quiet_runs(quiet: NDArray[np.bool_], offset: int) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(int)))
    yield from ((int(begin) + offset, int(end) + offset) for begin, end in edges.reshape(-1, 2))


def _dip(levels_db: Levels, quiet_db: float, word: Word, following: Word) -> int | None:
    """Return where a word ends whose end the level tells as well: before the quiet in which the level is lowest."""
    around = levels_db[word.end - NEAR : word.end + NEAR + 1]
    lowest = int(around.argmin())
    top_db = min(levels_db[word.begin : word.end].max(), levels_db[following.begin : following.end].max())
    if lowest in (0, len(around) - 1) or around[lowest] > top_db - DIP_DB:
        return None
    return _loud_before(levels_db >= quiet_db, word.end - NEAR + lowest)
