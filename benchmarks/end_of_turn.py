"""False cut-offs against the wait, for silence alone and for each end-of-turn engine that is usable here.

    python -m benchmarks.end_of_turn [--cues] [--recognizer pocketsphinx]

A pause within a turn that is longer than the wait it is given is a false cut-off. Every engine sees each silence as it
is after 100 ms, and says how long to wait (`pipeline.endpointing`). The shortest wait and the middle one are scaled
together until the median wait at the ends of turns is the one of the column; the longest stays. So each column compares
what is equally fast. "shipped" are the settings as they ship.

Three sets. Two are synthesized, and stand in for people's: pauses, hesitations, lists and spelled numbers are where
somebody put them in `benchmarks.turn_set`, and the voices' melody is a rule's; what was tuned was tuned on the one, and
the other is held out. The third are recorded people (`benchmarks.people`), on whom nothing was tuned: few, none of them
on the telephone, and where they did not pause they are cut. Words are what was said: without marks, as PocketSphinx
writes, or with them, as Whisper may; ``--recognizer`` has them recognized instead.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm
from pipeline.endpointing import NO_OPINION, Asks, Endpointing
from pipeline.engines import aclose, load, module
from pipeline.tasks import closing
from pipeline.turn import _words
from pipeline.turn_settings import TurnSettings

from . import turn_set
from .people import LENGTHS, TEXTS, People, people, readings
from .servers import machine
from .turn_set import Item

MEDIANS_MS = (200, 250, 300, 400, 600)
AT_MS = 300
SHIPPED = TurnSettings()
LEAST, MOST, HALVINGS = 0.02, 20.0, 24
DRAWN = 200
"""Sets drawn from this one, sentence by sentence, for an interval."""
CERTAIN = 1e-6
"""A probability is no nearer to 0 or 1, as log-odds."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The probabilities that an engine gave the pauses, with their lengths, and the ends of turns."""

    pauses: Sequence[tuple[float, float]]
    ends: Sequence[float]

    def wait_ms(self, scale: float) -> float:
        """Return the median wait at the ends of turns."""
        return float(np.median([_wait(scale)(probability) for probability in self.ends]))

    def cut_off(self, scale: float) -> float:
        """Return the share of pauses that end the turn."""
        wait = _wait(scale)
        return float(np.mean([pause_ms > wait(probability) for probability, pause_ms in self.pauses]))

    def cut_off_at(self, median_ms: float) -> float:
        """Return the share of false cut-offs where the median wait is this one; NaN where it is longer at any scale.

        The longest wait is not scaled, and an engine that takes most ends for pauses waits for it.
        """
        low, high = LEAST, MOST
        if not self.ends or self.wait_ms(low) > median_ms:
            return float(np.nan)
        for _ in range(HALVINGS):
            scale = (low * high) ** 0.5
            low, high = (scale, high) if self.wait_ms(scale) < median_ms else (low, scale)
        return self.cut_off(high)


def _wait(scale: float) -> Callable[[float], int]:
    least, middle = round(SHIPPED.endpoint_min_ms * scale), round(SHIPPED.endpoint_ms * scale)
    return Endpointing(TurnSettings(least, middle, SHIPPED.endpoint_max_ms), Asks.AGAIN).wait_ms


def of(items: Sequence[Item], given: Sequence[float]) -> Judged:
    """Part an engine's probabilities by what the silences were."""
    pauses = [(p, item.pause_ms) for p, item in zip(given, items, strict=True) if item.pause_ms is not None]
    return Judged(pauses, [p for p, item in zip(given, items, strict=True) if item.pause_ms is None])


async def judgments(turn: Any, items: Sequence[Item], words: Sequence[str]) -> list[float]:
    """Ask an engine about every silence, with these words."""
    return [await turn.is_complete(item.heard, said, "en") for item, said in zip(items, words, strict=True)]


def share_of_silence(items: Sequence[Item], given: Sequence[float]) -> tuple[float, float, float]:
    """Return the false cut-offs at ``AT_MS`` as a share of those of silence alone, and its interval of 95 %.

    The interval is that of sets which are drawn from this one, all readings of a sentence at once. NaN where the engine
    reaches that wait in none of them.
    """
    readings: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        readings.setdefault(item.turn, []).append(i)
    turns, dice = list(readings.values()), random.Random(turn_set.SEED)

    def share(indices: Sequence[int]) -> float:
        drawn = [items[i] for i in indices]
        alone = of(drawn, [NO_OPINION] * len(drawn)).cut_off_at(AT_MS) if turn_set.pauses(drawn) else 0.0
        return of(drawn, [given[i] for i in indices]).cut_off_at(AT_MS) / alone if alone > 0 else np.nan

    shares = [share([i for turn in dice.choices(turns, k=len(turns)) for i in turn]) for _ in range(DRAWN)]
    low, high = np.percentile([one for one in shares if not np.isnan(one)] or [np.nan], [2.5, 97.5])
    return share(range(len(items))), float(low), float(high)


async def recognized(stt: Any, items: Sequence[Item]) -> list[str]:
    """Return the words that speech-to-text hears."""
    return [await _heard(stt, item.heard) for item in items]


async def _heard(stt: Any, pcm: Pcm) -> str:
    text = ""
    async with closing(stt.transcribe(_frames(pcm), "en")) as transcripts:
        async for transcript in transcripts:
            text = transcript.text
    return text


async def _frames(pcm: Pcm) -> AsyncIterator[AudioFrame]:
    for begin in range(0, len(pcm), 320):
        yield AudioFrame(pcm[begin : begin + 320], SPEECH_RATE_HZ, begin)


async def rows(items: Sequence[Item], stt: Any, smart_turn: Any) -> dict[str, list[float]]:
    """Return every engine's judgments of a half."""
    heuristic = load("turn", "heuristic", {})
    marked = [item.words for item in items]
    plain = [turn_set.plain(words) for words in marked]
    unheard = [""] * len(items)
    given = {
        "silence": [NO_OPINION] * len(items),
        "heuristic, words without marks": await judgments(heuristic, items, plain),
        "heuristic, words with marks": await judgments(heuristic, items, marked),
        "heuristic, no words: the voice": await judgments(heuristic, items, unheard),
    }
    if stt is not None:
        given["heuristic, recognized words"] = await judgments(heuristic, items, await recognized(stt, items))
    if smart_turn is not None:
        given["smart_turn"] = await judgments(smart_turn, items, unheard)
        given["smart_turn and words without marks"] = together(
            given["smart_turn"], given["heuristic, words without marks"]
        )
    await aclose(heuristic)
    return given


def together(some: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the probabilities of the mean log-odds of two engines: a candidate, and no engine of ours yet."""
    odds = np.clip(np.array([some, others]), CERTAIN, 1 - CERTAIN)
    log_odds = np.log(odds / (1 - odds)).mean(axis=0)
    return [float(probability) for probability in 1 / (1 + np.exp(-log_odds))]


def report(items: Sequence[Item], given: Mapping[str, Sequence[float]]) -> str:
    """Return a table: false cut-offs in percent, by the median wait; as shipped; as a share of those of silence."""
    lines = [
        f"{'false cut-offs in % at a median wait of':40}" + "".join(f"{ms:6} ms" for ms in MEDIANS_MS) + "  shipped"
    ]
    shares = [f"\nfalse cut-offs at {AT_MS} ms as a share of those of silence, and where it lies in 95 % of such sets"]
    for name, probabilities in given.items():
        one = of(items, probabilities)
        rates = [one.cut_off_at(ms) for ms in MEDIANS_MS]
        cells = "".join(f"{'-':>9}" if np.isnan(rate) else f"{100 * rate:9.1f}" for rate in rates)
        lines.append(f"{name:40}{cells}  {100 * one.cut_off(1.0):.1f} at {one.wait_ms(1.0):.0f} ms")
        if name != "silence":
            share, low, high = share_of_silence(items, probabilities)
            shares.append(f"{name:40}" + ("        -" if np.isnan(share) else f"{share:9.2f}  {low:.2f} to {high:.2f}"))
    return "\n".join(lines + shares)


async def effects(items: Sequence[Item]) -> str:
    """Return how the false cut-offs at ``AT_MS`` change without each cue, in percentage points."""
    heuristic, all_cues = load("turn", "heuristic", {}), _words.CUES
    texts = [[turn_set.plain(item.words) for item in items], [item.words for item in items]]
    base = [of(items, await judgments(heuristic, items, words)).cut_off_at(AT_MS) for words in texts]
    lines = [f"{f'without it, points at {AT_MS} ms':40}{'weight':>9}{'no marks':>9}{'marks':>9}"]
    for cue in all_cues:
        _words.CUES = tuple(other for other in all_cues if other is not cue)
        without = [of(items, await judgments(heuristic, items, words)).cut_off_at(AT_MS) for words in texts]
        change = "".join(f"{100 * (after - before):+9.1f}" for after, before in zip(without, base, strict=True))
        lines.append(f"{cue.name:40}{cue.weight:+9.1f}{change}")
    _words.CUES = all_cues
    await aclose(heuristic)
    return "\n".join(lines)


def of_people(found: People, given: Mapping[str, Sequence[float]]) -> str:
    """Return the tables of recorded people: where they paused, where they were cut, and both."""
    ends, paused, cut = (len(places) for places in (found.ends, found.paused, found.cut))
    tables = [
        f"people: {ends} ends of sentences, {paused} places where they paused, {cut} where they were cut,"
        f" {LENGTHS} pauses at each place; {len(TEXTS)} recordings, drawn one by one"
    ]
    places = [*found.ends, *found.paused, *found.cut]
    for name, indices in (
        ("where they paused", range(ends + paused)),
        ("where they were cut", [*range(ends), *range(ends + paused, len(places))]),
        ("both", range(len(places))),
    ):
        items = readings([places[i] for i in indices], random.Random(turn_set.SEED))
        judged = {row: [by_place[i] for i in indices for _ in range(LENGTHS)] for row, by_place in given.items()}
        tables.append(f"people, {name}\n{report(items, judged)}")
    return "\n\n".join(tables)


def waits(found: People, given: Mapping[str, Sequence[float]]) -> str:
    """Return how long recorded people have to wait at the end of what they said, in ms by each row."""
    wait = Endpointing(SHIPPED, Asks.AGAIN).wait_ms
    lines = ["wait in ms at the ends of what people said"]
    lines += [
        f"{name:40}" + "".join(f"{wait(probability):6}" for probability in by_place[: len(found.ends)])
        for name, by_place in given.items()
    ]
    return "\n".join([*lines, *(f"  {item.words}" for item in found.ends)])


def lacks_smart_turn() -> str:
    """Return what keeps Smart Turn from being measured here; empty if nothing does."""
    found = module("turn", "smart_turn").describe(os.environ)
    return found.lacks or ("its model is not here" if "downloaded when" in found.note else "")


def measure(*, with_cues: bool, recognizer: str) -> None:
    """Measure and print."""
    lacks = lacks_smart_turn()
    smart_turn = None if lacks else load("turn", "smart_turn", os.environ)
    stt = load("stt", recognizer, os.environ) if recognizer else None
    halves = {half: turn_set.synthesized(half) for half in turn_set.VOICES}
    recorded = people()

    async def print_all() -> None:
        for half, items in halves.items():
            pauses = len(turn_set.pauses(items))
            print(f"\n{half}: {pauses} pauses, {len(items) - pauses} ends, {len(turn_set.VOICES[half])} voices")
            print(report(items, await rows(items, stt, smart_turn)))
        given = await rows([*recorded.ends, *recorded.paused, *recorded.cut], stt, smart_turn)
        print(f"\n{of_people(recorded, given)}\n\n{waits(recorded, given)}")
        if smart_turn is None:
            print(f"\nsmart_turn was not measured: {lacks}")
        if with_cues:
            print(f"\n{await effects([item for items in halves.values() for item in items])}")
        for engine in (smart_turn, stt):
            await aclose(engine)

    asyncio.run(print_all())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cues", action="store_true", help="also print what each cue of the heuristic is worth")
    parser.add_argument("--recognizer", default="", help="a speech-to-text engine, for recognized words")
    options = parser.parse_args()
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}; espeak-ng's voices, then people's")
    measure(with_cues=options.cues, recognizer=options.recognizer)


if __name__ == "__main__":
    main()
