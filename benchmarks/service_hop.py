"""What it costs to have an engine in a service process: the same engine here and there, in turns within one run.

    python -m benchmarks.service_hop [--rounds 200] [--stt scripted] [--llm echo] [--tts tone]

Time to first audio (tts), to the first delta (llm), and from the end of the audio, spoken in real time, to the final
words (stt). By default the engines are stand-ins that take no time, so that what is left is the hop: the request, two
processes' event loops, the first bytes back. Each service is ``vocal-node service`` on loopback, reached through
``openai_compatible`` over kept connections, as the server reaches it. The interval is where the difference of the
medians lies in 95 % of resampled runs. Whatever else the machine does is measured with it: on a busy one, run it with
``chrt --fifo 10`` in front, and compare.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, silence
from pipeline.engines import Kind, aclose, load
from pipeline.events import Message
from pipeline.tasks import closing

from .servers import machine, running

SERVICES: Mapping[Kind, str] = {"tts": "tts", "llm": "chat", "stt": "stt"}
MEASURED: Mapping[Kind, str] = {"tts": "first audio", "llm": "first delta", "stt": "final words"}
ASKED = (Message("system", "Be kind."), Message("user", "I need a cup of tea."))
CLAUSE = "This is the answer, and it takes a while to say all of it."
UTTERANCE_FRAMES = 15
WARM_UP = 10
RESAMPLED = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """The same engine twice: in this process, and reached in a service."""

    kind: Kind
    name: str
    here: Any
    there: Any


@dataclass(frozen=True, slots=True)
class Taken:
    """How long it took, round by round."""

    name: str
    here_ms: list[float] = field(default_factory=list)
    there_ms: list[float] = field(default_factory=list)

    def added_ms(self) -> tuple[float, float, float]:
        """Return the difference of the medians, and where it lies in 95 % of runs drawn from this one."""
        here, there = np.array(self.here_ms), np.array(self.there_ms)
        drawn = np.random.default_rng(1).integers(len(here), size=(RESAMPLED, len(here)))
        resampled = np.median(there[drawn], axis=1) - np.median(here[drawn], axis=1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        return float(np.median(there) - np.median(here)), float(low), float(high)


@asynccontextmanager
async def pair(kind: Kind, name: str, data_dir: str) -> AsyncIterator[Pair]:
    """Create an engine and start a service with the same one."""
    variable = f"VOCAL_{kind.upper()}"
    environment = {variable: name, "VOCAL_LOG_LEVEL": "WARNING", "VOCAL_DATA_DIR": data_dir}
    command = [sys.executable, "-m", "media_server", "service", SERVICES[kind], "--port", "{port}"]
    async with running(command, environment) as url, AsyncExitStack() as created:
        here, there = load(kind, name, {}), load(kind, "openai_compatible", {f"{variable}_URL": url})
        created.push_async_callback(aclose, here)
        created.push_async_callback(aclose, there)
        reason = await there.ready()
        if reason is not None:
            raise RuntimeError(reason)
        yield Pair(kind, name, here, there)


async def measure(engines: Mapping[Kind, str], rounds: int) -> list[Taken]:
    """Return what all took, asked in turns; the first rounds count nothing."""
    with tempfile.TemporaryDirectory() as data_dir:
        async with AsyncExitStack() as services:
            pairs = [await services.enter_async_context(pair(*item, data_dir)) for item in engines.items()]
            taken = [Taken(f"{one.kind} {one.name}, {MEASURED[one.kind]}") for one in pairs]
            for i in range(WARM_UP + rounds):
                for one, times in zip(pairs, taken, strict=True):
                    here_ms, there_ms = await wait_ms(one.kind, one.here), await wait_ms(one.kind, one.there)
                    if i >= WARM_UP:
                        times.here_ms.append(here_ms)
                        times.there_ms.append(there_ms)
    return taken


async def wait_ms(kind: Kind, engine: Any) -> float:
    """Return what the caller waits for."""
    if kind == "stt":
        return await final_words_ms(engine)
    items = engine.complete(ASKED) if kind == "llm" else engine.synthesize(CLAUSE, None, "en", 1.0)
    began_s = time.perf_counter()
    async with closing(items):
        await anext(items)
        waited_s = time.perf_counter() - began_s
        async for _ in items:  # to the end, as a reply does
            continue
    return waited_s * 1000


async def final_words_ms(stt: Any) -> float:
    """Speak, and return the time from the last frame to the final words."""
    ended_s = 0.0

    async def spoken() -> AsyncIterator[AudioFrame]:
        nonlocal ended_s
        for i in range(UTTERANCE_FRAMES):
            yield AudioFrame(silence(SPEECH_RATE_HZ // 50), SPEECH_RATE_HZ, i * SPEECH_RATE_HZ // 50)
            await asyncio.sleep(0.02)
        ended_s = time.perf_counter()

    final_s = 0.0
    async with closing(stt.transcribe(spoken(), "en")) as transcripts:
        async for _ in transcripts:
            final_s = time.perf_counter()
    return (final_s - ended_s) * 1000


def report(taken: Sequence[Taken]) -> str:
    """Return the table."""
    rows = [f"{'':30}{'n':>5} {'here p50':>9} {'p95':>6} {'there p50':>10} {'p95':>6} {'added':>6}   95 %     (ms)"]
    for one in taken:
        here, there = (np.percentile(times, [50, 95]) for times in (one.here_ms, one.there_ms))
        added, low, high = one.added_ms()
        figures = f"{here[0]:9.2f} {here[1]:6.2f} {there[0]:10.2f} {there[1]:6.2f} {added:6.2f}   {low:.2f}..{high:.2f}"
        rows.append(f"{one.name:30}{len(one.here_ms):5} {figures}")
    return "\n".join(rows)


def policy() -> str:
    """Say whether others may have been served first."""
    if not hasattr(os, "sched_getscheduler"):
        return "unknown"
    return "real time" if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR) else "as everyone's"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--stt", default="scripted")
    parser.add_argument("--llm", default="echo")
    parser.add_argument("--tts", default="tone")
    args = parser.parse_args()
    engines: dict[Kind, str] = {"tts": args.tts, "llm": args.llm, "stt": args.stt}
    load_before = os.getloadavg()[0]
    taken = uvloop.run(measure(engines, args.rounds))
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}")
    print(f"here: in this process; there: in a service process on loopback; {args.rounds} rounds, in turns")
    print(f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; scheduling {policy()}")
    print(report(taken))


if __name__ == "__main__":
    main()
