"""Many calls at once against one server process on one core: is everyone answered, and does anyone stutter?

    python -m benchmarks.many_sessions [--sessions 25] [--turns 5]

Everyone begins within the first five seconds, speaks for 1.5 s, hears the answer (3.5 s) out, pauses for a moment and
goes on. "Late" is how late the server's frames left, against the earliest frame on the same timeline (the server's own
figure, from /metrics; connecting is in it). "Gap" is the time between two packets at a caller: 20 ms if nothing ever
stutters, up to 40 where a talkspurt that left early ends. The server is kept to one core and the callers, all in this
process, to the others, where the system can do that (Linux).
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import random
import re
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import uvloop

from .cpu import share, used_s
from .floor import floor
from .measuring_caller import Caller, Turn, call
from .response_latency import added_s, percentiles, row
from .servers import machine, started, vocal_node
from .stand_ins import Rules

SILENCE_MS = 200


@dataclass(frozen=True, slots=True)
class Taken:
    """All turns, all gaps between packets, what one session used of a core, and the server's metrics at the end."""

    turns: list[Turn]
    gaps_s: list[float]
    cpu_percent: float | None
    metrics: str


async def measure(sessions: int, turns: int, core: int | None) -> Taken:
    """Hold that many calls at once with a server on this core."""
    command, environment = vocal_node(SILENCE_MS, {"VOCAL_MAX_SESSIONS": str(sessions)})
    async with started(command, environment, core=core) as server, AsyncExitStack() as calls:
        callers = [await calls.enter_async_context(call(server.url, seed=i)) for i in range(sessions)]
        for caller in callers:
            caller.ear.gaps_s.clear()
        began_s, used_before_s = time.monotonic(), used_s(server.pid)
        taken = await asyncio.gather(*(_converse(caller, i, turns) for i, caller in enumerate(callers)))
        percent = share(used_before_s, used_s(server.pid), time.monotonic() - began_s)
        gaps_s = [gap for caller in callers for gap in caller.ear.gaps_s]
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as response:
            metrics = await response.text()
        return Taken([turn for one in taken for turn in one], gaps_s, percent and percent / sessions, metrics)


async def _converse(caller: Caller, i: int, turns: int) -> list[Turn]:
    await asyncio.sleep(random.Random(i).uniform(0, 5))
    return await caller.take_turns(turns, speech_s=1.5, interrupt=False)


def late_percentile(metrics: str, percent: float) -> str:
    """Return the histogram bucket (ms) that holds this percentile of the server's frame lateness."""
    buckets: list[tuple[str, str]] = re.findall(r'vocal_frame_late_ms_bucket\{le="([^"]+)"\} (\S+)', metrics)
    total = float(buckets[-1][1])
    return next(bound for bound, count in buckets if float(count) >= total * percent / 100)


def split_cores() -> int | None:
    """Keep this process off one core, and return that one for the server; None where that cannot be done."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(cores) < 2:
        return None
    core = min(cores)
    os.sched_setaffinity(0, cores - {core})
    return core


def report(taken: Taken) -> str:
    """Return the table."""
    added_ms = [1000 * seconds for seconds in added_s(taken.turns, SILENCE_MS)]
    gaps_ms = [1000 * seconds for seconds in taken.gaps_s]
    late = [late_percentile(taken.metrics, percent) for percent in (50, 95, 99)]
    cpu = "–" if taken.cpu_percent is None else f"{taken.cpu_percent:.1f} %"
    lines = [
        row("ms", "p50", "p95", "p99", "max"),
        row(*["---"] * 5),
        row(f"response latency, added to {SILENCE_MS}", *percentiles(added_ms, 50, 95, 99, 100)),
        row("floor", *percentiles(floor(Rules(SILENCE_MS)).response_ms, 50, 95, 99, 100)),
        row("gap between packets at a caller", *percentiles(gaps_ms, 50, 95, 99, 100)),
        row("outgoing frame late, at most", *late, ""),
        f"\n{len(added_ms)} of {len(taken.turns)} turns were answered; a call takes {cpu} of a core.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=25)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    core = split_cores()
    taken = uvloop.run(measure(args.sessions, args.turns, core))
    where = "a core that it shares with the callers" if core is None else "one core, the callers on the others"
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}")
    print(f"{args.sessions} calls at once, {args.turns} turns each; the server on {where}\n")
    print(report(taken))


if __name__ == "__main__":
    main()
