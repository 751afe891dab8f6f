"""What working behind the caller's silence costs in model calls, and what it saves in response latency.

    python -m benchmarks.overlap [--detectors silero] [--prepared "in time"]
    python -m benchmarks.overlap --stale 10000

Every turn of `benchmarks.turn_set`, and recordings of people with pauses in them (`benchmarks.people`, ``READINGS`` of
each that ends where its sentence does), go through whole sessions in virtual time, ``PER_SESSION`` turns each in random
order (`benchmarks.answered`). So the figures are exact, and those of the machine are not in them.

All that is asked between a turn's first sample and the next one's counts for it: one that was cut off, and answered
twice, has two calls at least. Latencies are from the last sample of the turn's sound, as it was synthesized or
recorded, to the first audible frame, and of turns that were not cut off: whose answer was not released before that
sample. Smart Turn is a row where its model is here (``VOCAL_SMART_TURN_MODEL``); it takes a minute for each 500 turns.

``--stale`` looks for frames that nobody may speak instead, in so many turns (`benchmarks.stale`).
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from media_server import config
from media_server.sessions import session_settings
from pipeline import endpointing
from pipeline.engines import EndOfTurn, close, load, module
from pipeline.session_settings import SessionSettings
from pipeline.threads import EngineThreads

from . import stale, turn_set
from .answered import Row, Taken, taken
from .end_of_turn import lacks_smart_turn
from .people import TEXTS, recording
from .spoken import Speech, listened, readings, speeches

PER_SESSION = 20
READINGS = 40
"""Of each recording."""
SMART_TURN_S = 0.05
"""What a judgment takes where a core is free: 45 ms measured. Virtual time does not tell."""
DETECTORS = ("silero", "energy")
PREPARED: Mapping[str, int | None] = {"in time": None, "at once": 100_000, "at the end": -100_000}
"""When an answer is prepared, as `pipeline.endpointing.SLACK_MS`."""


def waits(silence_ms: int) -> SessionSettings:
    """Return what the server makes of a silence rule."""
    return session_settings(config.load({"VOCAL_ENDPOINT_MS": str(silence_ms)}))


def rows(heuristic: EndOfTurn, smart_turn: EndOfTurn | None) -> list[Row]:
    """Return what is compared."""
    shipped = session_settings(config.load({}))
    table = [
        *(Row(f"silence of {ms} ms", waits(ms)) for ms in (200, 300, 400)),
        Row("heuristic, words without marks", shipped, heuristic),
        Row("heuristic, words with marks", shipped, heuristic, str),
    ]
    return [*table, Row("Smart Turn", shipped, smart_turn)] if smart_turn else table


@contextmanager
def judging(name: str, takes_s: float) -> Iterator[EndOfTurn]:
    """Load an end-of-turn engine, and let it listen here for so long: its thread knows nothing of virtual time."""

    async def run_here(threads: EngineThreads, work: Callable[[], float]) -> float:
        await asyncio.sleep(takes_s)
        return work()

    file = module("turn", name)
    engine, shipped = file.create(os.environ), file.run_in_thread
    vars(file)["run_in_thread"] = run_here
    try:
        yield engine
    finally:
        vars(file)["run_in_thread"] = shipped
        close(engine)


@contextmanager
def prepared(when: str) -> Iterator[None]:
    """Prepare answers like this meanwhile."""
    slack_ms = PREPARED[when]
    shipped = endpointing.SLACK_MS
    endpointing.SLACK_MS = shipped if slack_ms is None else slack_ms
    try:
        yield
    finally:
        endpointing.SLACK_MS = shipped


COLUMNS = (
    "cut off",
    "model calls a turn",
    "an answer",
    "revoked",
    "voice calls",
    "pauses asked",
    "endpoint p50 / p95",
    "response p50 / p95",
    "as told p50 / p95",
    "words wrong",
)
HEAD = f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}"


def line(name: str, turns: Sequence[Taken]) -> str:
    """Return a row of the table."""
    whole = [turn for turn in turns if not turn.cut_off]
    calls, answers = sum(turn.model for turn in turns), sum(turn.released for turn in turns)
    a_turn = [calls, calls - answers, sum(turn.voice for turn in turns), sum(turn.pauses for turn in turns)]
    model, revoked, voice, pauses = (f"{count / len(turns):.2f}" for count in a_turn)
    cells = [
        name,
        f"{100 * (1 - len(whole) / len(turns)):.0f} %",
        model,
        f"{calls / max(1, answers):.2f}",
        revoked,
        voice,
        pauses,
        _spread([turn.endpoint_ms for turn in whole]),
        _spread([turn.response_ms for turn in whole]),
        _spread([turn.told_ms for turn in whole]),
        str(sum(not turn.complete for turn in whole)),
    ]
    return f"| {' | '.join(cells)} |"


def _spread(times_ms: Sequence[float | None]) -> str:
    known = [ms for ms in times_ms if ms is not None]
    return f"{np.percentile(known, 50):.0f} / {np.percentile(known, 95):.0f}" if known else "never"


def callers() -> Iterator[tuple[str, Mapping[str, Sequence[Speech]]]]:
    """Return what is said, set by set. Blocks for seconds."""
    for half in turn_set.VOICES:
        yield half, {half: speeches(turn_set.synthesized(half), PER_SESSION, _dice(half))}
    yield "people", recorded()


def recorded() -> dict[str, list[Speech]]:
    """Return what people say, by recording. Blocks for seconds."""
    dice = _dice("people")
    whole = {Path(name).stem: recording(name) for name, text in TEXTS.items() if text.endswith(".")}
    return {name: readings(one, READINGS, PER_SESSION, dice) for name, one in whole.items()}


def _dice(name: str) -> random.Random:
    return random.Random(f"{turn_set.SEED} {name}")


def measure(detectors: Sequence[str], policies: Sequence[str]) -> None:
    """Measure and print."""
    lacks = lacks_smart_turn()
    with judging("heuristic", 0.0) as heuristic, ExitStack() as stack:
        smart_turn = None if lacks else stack.enter_context(judging("smart_turn", SMART_TURN_S))
        for name, said in callers():
            for detector in detectors:
                _measure(name, said, detector, rows(heuristic, smart_turn), policies)
    if lacks:
        print(f"\nSmart Turn was not measured: {lacks}")


def _measure(
    name: str, said: Mapping[str, Sequence[Speech]], detector: str, table: Sequence[Row], policies: Sequence[str]
) -> None:
    everything = [speech for some in said.values() for speech in some]
    turns = sum(len(speech.turns) for speech in everything)
    print(f"\n{name}, {turns} turns, speech detected by {detector}, {_pauses(everything)}\n\n{HEAD}")
    heard = [listened(load("vad", detector, {}), speech.pcm) for speech in everything]
    each = [f"| model calls a turn | {' | '.join(f'{one}, {_pauses(some)}' for one, some in said.items())} |"]
    each.append(f"|---|{'---|' * len(said)}")
    for policy in policies:
        for row in table:
            label = row.name if policy == "in time" else f"{row.name}, prepared {policy}"
            with prepared(policy):
                answered = [taken(row, speech, ear) for speech, ear in zip(everything, heard, strict=True)]
            print(line(label, [turn for some in answered for turn in some]), flush=True)
            rest = iter(answered)
            calls = [np.mean([turn.model for _ in some for turn in next(rest)]) for some in said.values()]
            each.append(f"| {label} | {' | '.join(f'{one:.2f}' for one in calls)} |")
    if len(said) > 1:
        print("\n" + "\n".join(each))


def _pauses(said: Sequence[Speech]) -> str:
    return f"{np.mean([turn.pauses for speech in said for turn in speech.turns]):.2f} pauses a turn"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="*", choices=DETECTORS, default=DETECTORS, help="of speech")
    parser.add_argument("--prepared", nargs="*", choices=tuple(PREPARED), default=tuple(PREPARED), help="answers")
    parser.add_argument("--stale", type=int, default=0, metavar="TURNS", help="look for stale frames instead")
    options = parser.parse_args()
    if options.stale:
        logging.getLogger("pipeline").setLevel(logging.CRITICAL)  # engines fail all the time
        print(stale.report(options.stale))
        return
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; stand-ins for all models, virtual time")
    measure(options.detectors, options.prepared)


if __name__ == "__main__":
    main()
