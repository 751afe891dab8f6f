"""False cut-offs against the wait, for silence alone and for each end-of-turn engine that is usable here.

    python -m benchmarks.end_of_turn [--cues] [--recognizer pocketsphinx]

A pause within a turn that is longer than the wait it is given is a false cut-off. Every engine sees each silence as it
is after 100 ms, and says how long to wait (`pipeline.endpointing`). The shortest wait and the middle one are scaled
together until the median wait at the ends of turns is the one of the column; the longest stays. So each column compares
what is equally fast. "shipped" are the settings as they ship.

Speech is synthesized, and stands in for people's: pauses, hesitations, lists and spelled numbers are where somebody put
them in `benchmarks.turn_set`, and the voices' melody is a rule's. Words are what was said: without marks, as
PocketSphinx writes, or with them, as Whisper may; ``--recognizer`` has them recognized instead. What was tuned was
tuned on one half of the sentences and voices; the other half is held out.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
from collections.abc import AsyncIterator, Callable, Sequence
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
from .servers import machine
from .turn_set import Item

MEDIANS_MS = (200, 250, 300, 400, 600)
AT_MS = 300
SHIPPED = TurnSettings()
LEAST, MOST, HALVINGS = 0.02, 20.0, 40


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
        """Return the share of false cut-offs where the median wait is this one."""
        low, high = LEAST, MOST
        for _ in range(HALVINGS):
            scale = (low * high) ** 0.5
            low, high = (scale, high) if self.wait_ms(scale) < median_ms else (low, scale)
        return self.cut_off(high)


def _wait(scale: float) -> Callable[[float], int]:
    least, middle = round(SHIPPED.endpoint_min_ms * scale), round(SHIPPED.endpoint_ms * scale)
    return Endpointing(TurnSettings(least, middle, SHIPPED.endpoint_max_ms), Asks.AGAIN).wait_ms


async def judged(turn: Any, items: Sequence[Item], words: Sequence[str]) -> Judged:
    """Ask an engine about every silence, with these words; None is silence alone."""
    given = [
        NO_OPINION if turn is None else await turn.is_complete(item.heard, said, "en")
        for item, said in zip(items, words, strict=True)
    ]
    pauses = [(p, item.pause_ms) for p, item in zip(given, items, strict=True) if item.pause_ms is not None]
    return Judged(pauses, [p for p, item in zip(given, items, strict=True) if item.pause_ms is None])


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


async def rows(items: Sequence[Item], stt: Any, smart_turn: Any) -> dict[str, Judged]:
    """Return every engine's judgment of a half."""
    heuristic = load("turn", "heuristic", {})
    marked = [item.words for item in items]
    plain = [turn_set.plain(words) for words in marked]
    unheard = [""] * len(items)
    judgments = {
        "silence": await judged(None, items, unheard),
        "heuristic, words without marks": await judged(heuristic, items, plain),
        "heuristic, words with marks": await judged(heuristic, items, marked),
        "heuristic, no words: the voice": await judged(heuristic, items, unheard),
    }
    if stt is not None:
        judgments["heuristic, recognized words"] = await judged(heuristic, items, await recognized(stt, items))
    if smart_turn is not None:
        judgments["smart_turn"] = await judged(smart_turn, items, unheard)
    await aclose(heuristic)
    return judgments


def report(judgments: dict[str, Judged]) -> str:
    """Return a table: false cut-offs in percent, by the median wait; as shipped, with the wait."""
    lines = [
        f"{'false cut-offs in % at a median wait of':40}" + "".join(f"{ms:6} ms" for ms in MEDIANS_MS) + "  shipped"
    ]
    for name, one in judgments.items():
        cells = "".join(f"{100 * one.cut_off_at(ms):9.1f}" for ms in MEDIANS_MS)
        lines.append(f"{name:40}{cells}  {100 * one.cut_off(1.0):.1f} at {one.wait_ms(1.0):.0f} ms")
    return "\n".join(lines)


async def effects(items: Sequence[Item]) -> str:
    """Return how the false cut-offs at ``AT_MS`` change without each cue, in percentage points."""
    heuristic, all_cues = load("turn", "heuristic", {}), _words.CUES
    texts = [[turn_set.plain(item.words) for item in items], [item.words for item in items]]
    base = [(await judged(heuristic, items, words)).cut_off_at(AT_MS) for words in texts]
    lines = [f"{f'without it, points at {AT_MS} ms':40}{'weight':>9}{'no marks':>9}{'marks':>9}"]
    for cue in all_cues:
        _words.CUES = tuple(other for other in all_cues if other is not cue)
        without = [(await judged(heuristic, items, words)).cut_off_at(AT_MS) for words in texts]
        change = "".join(f"{100 * (after - before):+9.1f}" for after, before in zip(without, base, strict=True))
        lines.append(f"{cue.name:40}{cue.weight:+9.1f}{change}")
    _words.CUES = all_cues
    await aclose(heuristic)
    return "\n".join(lines)


async def of_people(items: Sequence[Item]) -> str:
    """Return how long recorded speakers would have to wait at the end of what they said."""
    heuristic = load("turn", "heuristic", {})
    wait = Endpointing(SHIPPED, Asks.AGAIN).wait_ms
    lines = ["wait in ms at the end of recorded speech: by the words, and by the voice alone"]
    for item in items:
        by_words, by_voice = [wait(await heuristic.is_complete(item.heard, w, "en")) for w in (item.words, "")]
        lines.append(f"{by_words:6}{by_voice:6}  {item.words}")
    await aclose(heuristic)
    return "\n".join(lines)


def measure(*, with_cues: bool, recognizer: str) -> None:
    """Measure and print."""
    found = module("turn", "smart_turn").describe(os.environ)
    here = found.lacks is None and "downloaded when" not in found.note
    smart_turn = load("turn", "smart_turn", os.environ) if here else None
    stt = load("stt", recognizer, os.environ) if recognizer else None
    halves = {half: turn_set.synthesized(half) for half in turn_set.VOICES}
    people = turn_set.recorded()

    async def print_all() -> None:
        for half, items in halves.items():
            pauses = len(turn_set.pauses(items))
            print(f"\n{half}: {pauses} pauses, {len(items) - pauses} ends, {len(turn_set.VOICES[half])} voices")
            print(report(await rows(items, stt, smart_turn)))
        if smart_turn is None:
            print(f"\nsmart_turn was not measured: {found.lacks or 'its model is not here'}")
        if with_cues:
            print(f"\n{await effects([item for items in halves.values() for item in items])}")
        print(f"\n{await of_people(people)}")
        for engine in (smart_turn, stt):
            await aclose(engine)

    asyncio.run(print_all())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cues", action="store_true", help="also print what each cue of the heuristic is worth")
    parser.add_argument("--recognizer", default="", help="a speech-to-text engine, for recognized words")
    options = parser.parse_args()
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}; synthesized speech, a stand-in for people's")
    measure(with_cues=options.cues, recognizer=options.recognizer)


if __name__ == "__main__":
    main()
