"""Many calls at once against one server process: is everyone answered, and does anyone stutter?

    python -m benchmarks.many_sessions [--sessions 20] [--turns 5]

Everyone begins within the first five seconds, speaks for 1.5 s, hears the answer (3.5 s) out, pauses for a moment and
goes on. "Late" is how late the server's frames left, against the earliest frame on the same timeline (the server's own
figure, from /metrics; connecting is in it). "Gap" is the time between two packets at a caller: 20 ms if nothing ever
stutters, up to 40 where a talkspurt that left early ends. Callers and server share this machine; the callers all run in
this process.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import random
import re
from contextlib import AsyncExitStack

import aiohttp
import numpy as np
import uvloop

from .measuring_caller import Caller, Turn, call
from .response_latency import added_s, percentiles
from .servers import machine, running, vocal_node

SILENCE_MS = 200


async def measure(sessions: int, turns: int) -> tuple[list[Turn], list[float], str]:
    """Return all turns, all gaps in seconds, and the server's metrics at the end."""
    command, environment = vocal_node(SILENCE_MS, {"VOCAL_MAX_SESSIONS": str(sessions)})
    async with running(command, environment) as url, AsyncExitStack() as calls:
        callers = [await calls.enter_async_context(call(url, seed=i)) for i in range(sessions)]
        for caller in callers:
            caller.ear.gaps_s.clear()
        taken = await asyncio.gather(*(_converse(caller, i, turns) for i, caller in enumerate(callers)))
        gaps_s = [gap for caller in callers for gap in caller.ear.gaps_s]
        async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as response:
            return [turn for one in taken for turn in one], gaps_s, await response.text()


async def _converse(caller: Caller, i: int, turns: int) -> list[Turn]:
    await asyncio.sleep(random.Random(i).uniform(0, 5))
    return await caller.take_turns(turns, speech_s=1.5, interrupt=False)


def late_percentile(metrics: str, percent: float) -> str:
    """Return the histogram bucket (ms) that holds this percentile of the server's frame lateness."""
    buckets: list[tuple[str, str]] = re.findall(r'vocal_frame_late_ms_bucket\{le="([^"]+)"\} (\S+)', metrics)
    total = float(buckets[-1][1])
    return next(bound for bound, count in buckets if float(count) >= total * percent / 100)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    taken, gaps_s, metrics = uvloop.run(measure(args.sessions, args.turns))
    answered = added_s(taken, SILENCE_MS)
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}")
    print(f"{args.sessions} calls at once, {args.turns} turns each: {len(answered)} of {len(taken)} answered")
    print(f"{'':34}{'p50':>7} {'p95':>7} {'p99':>7} {'max':>7}   (ms)")
    print(f"response, added to {SILENCE_MS:3}            {percentiles(answered)}")
    print(f"gap between packets               {percentiles(gaps_s)}")
    late = ", ".join(f"{percent:g} % at most {late_percentile(metrics, percent)} ms" for percent in (50, 95, 99, 99.9))
    print(f"late frames: {late}; {len(gaps_s)} packets, longest gap {np.max(gaps_s) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
