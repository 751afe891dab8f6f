"""What working behind the caller's silence costs in model calls, and what it saves in response latency.

    python -m benchmarks.overlap [--detectors silero] [--prepared "in time"]
    python -m benchmarks.overlap --stale 10000

Every turn of `benchmarks.turn_set` goes through whole sessions in virtual time, ``PER_SESSION`` turns each in random
order: real speech detection, turn taking and playout; a recognizer that knows what was said by then, and a model and a
voice that take the times of a fast one each. So the figures are exact, and those of the machine are not in them.

All that is asked between a turn's first sample and the next one's counts for it: one that was cut off, and answered
twice, has two calls at least. Latencies are from the last sample of the turn's sound, as it was synthesized, to the
first audible frame, and of turns that were not cut off: whose answer was not released before that sample.

``--stale`` looks for frames that nobody may speak instead, in so many turns (`benchmarks.stale`).
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from media_server import config
from media_server.sessions import session_settings
from pipeline import endpointing
from pipeline.agents import Agent
from pipeline.audio import SPEECH_RATE_HZ, AudioFormat, Pcm
from pipeline.engines import EndOfTurn, Engines, close, load, module
from pipeline.events import Event, Message, ReplyAudioStarted, ReplyStarted, TurnEnded, TurnMeasured
from pipeline.playout import Playout
from pipeline.session import Session
from pipeline.session_settings import SessionSettings
from pipeline.threads import EngineThreads

from . import stale, turn_set, virtual_time
from .spoken import Recognizer, Replayed, Speech, Turn, listened, speeches

STT_S, TTFT_S, TTFB_S = 0.04, 0.12, 0.09
ANSWER_MS = 600
FRAME_SAMPLES = SPEECH_RATE_HZ // 50
PREROLL_S = 0.3
PER_SESSION = 20
FORMAT = AudioFormat(24_000)
DETECTORS = ("silero", "energy")
PREPARED: Mapping[str, int | None] = {"in time": None, "at once": 100_000, "at the end": -100_000}
"""When an answer is prepared, as `pipeline.endpointing.SLACK_MS`."""


@dataclass
class Model:
    """Answers two words, and notes when it was asked."""

    asked_s: list[float] = field(default_factory=list)

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Take ``TTFT_S``."""
        self.asked_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(TTFT_S)
        yield "All right."


@dataclass
class Voice:
    """Loud for ``ANSWER_MS``, and notes when it was asked."""

    rate_hz: int = FORMAT.rate_hz
    asked_s: list[float] = field(default_factory=list)

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Take ``TTFB_S``."""
        self.asked_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(TTFB_S)
        yield np.full(self.rate_hz * ANSWER_MS // 1000, 8_000, np.int16)


@dataclass(frozen=True, slots=True)
class Row:
    """How sessions decide that a turn is over."""

    name: str
    settings: SessionSettings
    turn: EndOfTurn | None = None
    write: Callable[[str], str] = turn_set.plain


@dataclass(frozen=True, slots=True)
class Taken:
    """One turn: how often each was asked, how often it was answered, and when it ended and an answer came, in ms."""

    model: int
    voice: int
    pauses: int
    released: int
    cut_off: bool
    complete: bool
    """What was answered last are all words that were said, or the turn was cut off."""
    endpoint_ms: float | None
    response_ms: float | None
    told_ms: float | None
    """The same as the server measures it: from the last sample that its detector took for speech."""


def waits(silence_ms: int) -> SessionSettings:
    """Return what the server makes of a silence rule."""
    return session_settings(config.load({"VOCAL_ENDPOINT_MS": str(silence_ms)}))


def rows(engine: EndOfTurn) -> list[Row]:
    """Return what is compared."""
    shipped = session_settings(config.load({}))
    return [
        *(Row(f"silence of {ms} ms", waits(ms)) for ms in (200, 300, 400)),
        Row("heuristic, words without marks", shipped, engine),
        Row("heuristic, words with marks", shipped, engine, str),
    ]


@contextmanager
def heuristic_engine() -> Iterator[EndOfTurn]:
    """Load the heuristic, and let it listen here: its thread knows nothing of virtual time."""

    async def run_here(threads: EngineThreads, work: Callable[[], float]) -> float:
        return work()

    heuristic = module("turn", "heuristic")
    engine, shipped = heuristic.create({}), heuristic.run_in_thread
    vars(heuristic)["run_in_thread"] = run_here
    try:
        yield engine
    finally:
        vars(heuristic)["run_in_thread"] = shipped
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


def taken(row: Row, speech: Speech, detector: Replayed) -> list[Taken]:
    """Let the caller say it all in one session, in virtual time."""
    return virtual_time.run(_converse(row, speech, detector))


async def _converse(row: Row, speech: Speech, detector: Replayed) -> list[Taken]:
    loop, playout, events = asyncio.get_running_loop(), Playout(FORMAT), list[tuple[float, Event]]()
    words = [word for turn in speech.turns for word in turn.words]
    stt, model, voice = Recognizer(words, STT_S, row.write), Model(), Voice()
    start_s = loop.time()

    async def listen() -> None:
        while True:
            await playout.next_frame()

    async with Session(Agent("a", "A"), Engines(detector, stt, model, voice, row.turn), playout, row.settings) as call:
        call.subscribe(lambda event: events.append((loop.time(), event)))
        ear = asyncio.create_task(listen())
        for begin in range(0, len(speech.pcm), FRAME_SAMPLES):
            frame = speech.pcm[begin : begin + FRAME_SAMPLES]
            await asyncio.sleep(start_s + (begin + len(frame)) / SPEECH_RATE_HZ - loop.time())
            call.push_audio(frame)
        ear.cancel()
        await asyncio.gather(ear, return_exceptions=True)
    asked = (model.asked_s, voice.asked_s, stt.pauses_s)
    begins_s = [start_s + turn.begin_samples / SPEECH_RATE_HZ - PREROLL_S for turn in speech.turns]
    return [
        _taken(
            turn,
            start_s,
            row,
            tuple(sum(begin_s <= at_s < end_s for at_s in times) for times in asked),
            [(at_s, event) for at_s, event in events if begin_s <= at_s < end_s],
        )
        for turn, (begin_s, end_s) in zip(speech.turns, pairwise([*begins_s, float("inf")]), strict=True)
    ]


def _taken(
    turn: Turn, start_s: float, row: Row, asked: tuple[int, ...], events: Sequence[tuple[float, Event]]
) -> Taken:
    end_s = start_s + turn.end_samples / SPEECH_RATE_HZ

    def after_ms(kind: type[Event]) -> float | None:
        times = [at_s for at_s, event in events if isinstance(event, kind) and at_s >= end_s]
        return (times[0] - end_s) * 1000 if times else None

    released = [at_s for at_s, event in events if isinstance(event, ReplyStarted)]
    said = [event.text for _, event in events if isinstance(event, TurnEnded)]
    cut_off = any(at_s < end_s for at_s in released)
    complete = cut_off or said == [row.write(turn.text)]
    told_ms = [event.first_audio_ms for _, event in events if isinstance(event, TurnMeasured)]
    model, voice, pauses = asked
    return Taken(
        model,
        voice,
        pauses,
        len(released),
        cut_off,
        complete,
        after_ms(TurnEnded),
        after_ms(ReplyAudioStarted),
        told_ms[-1] if told_ms else None,
    )


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


def measure(detectors: Sequence[str], policies: Sequence[str]) -> None:
    """Measure and print."""
    with heuristic_engine() as engine:
        _measure(rows(engine), detectors, policies)


def _measure(table: Sequence[Row], detectors: Sequence[str], policies: Sequence[str]) -> None:
    for half in turn_set.VOICES:
        said = speeches(turn_set.synthesized(half), PER_SESSION, random.Random(f"{turn_set.SEED} {half}"))
        for name in detectors:
            heard = [listened(load("vad", name, {}), speech.pcm) for speech in said]
            print(f"\n{half}, {sum(len(speech.turns) for speech in said)} turns, speech detected by {name}\n\n{HEAD}")
            for policy in policies:
                for row in table:
                    with prepared(policy):
                        turns = [t for s, ear in zip(said, heard, strict=True) for t in taken(row, s, ear)]
                    label = row.name if policy == "in time" else f"{row.name}, prepared {policy}"
                    print(line(label, turns), flush=True)


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
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; synthesized speech, stand-ins for all models, virtual time")
    measure(options.detectors, options.prepared)


if __name__ == "__main__":
    main()
