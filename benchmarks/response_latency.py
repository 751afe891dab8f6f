"""Response latency and barge-in, this server and a bare aiortc server side by side.

    python -m benchmarks.response_latency [--turns 20] [--rounds 3] [--silence-ms 200]

Response latency: the caller's last sample of speech left to the first audible packet arrived; "added" is that less the
silence rule, which has to be waited out anyway. Barge-in: the caller's first sample of speech left to the last audible
packet arrived. Loopback; models are stand-ins that take no time; the servers take turns within one run, each in its own
process, the caller in another.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence

import numpy as np
import uvloop

from .measuring_caller import Turn, call
from .servers import bare_aiortc, machine, running, vocal_node


async def measure(turns: int, rounds: int, silence_ms: int) -> dict[str, list[Turn]]:
    """Return every turn of every server; one call a server and round."""
    servers = {"vocal-node": vocal_node(silence_ms), "bare aiortc": bare_aiortc(silence_ms)}
    taken: dict[str, list[Turn]] = {name: [] for name in servers}
    for i in range(rounds):
        for name, (command, environment) in servers.items():
            async with running(command, environment) as url, call(url, seed=i) as caller:
                taken[name] += await caller.take_turns(turns)
    return taken


def added_s(turns: Sequence[Turn], silence_ms: int) -> list[float]:
    """Return what each answered turn took beyond the silence rule."""
    return [turn.response_s - silence_ms / 1000 for turn in turns if turn.response_s is not None]


def percentiles(seconds: Sequence[float]) -> str:
    """Return median, 95th, 99th percentile and maximum in ms."""
    ms = np.array(seconds) * 1000
    return " ".join(f"{value:7.1f}" for value in (*np.percentile(ms, [50, 95, 99]), ms.max()))


def report(taken: dict[str, list[Turn]], silence_ms: int) -> str:
    """Return the table."""
    rows = [f"{'':34}{'p50':>7} {'p95':>7} {'p99':>7} {'max':>7}   (ms)"]
    for name, turns in taken.items():
        added = added_s(turns, silence_ms)
        cuts = [turn.cut_s for turn in turns if turn.cut_s is not None]
        rows.append(f"{name:12} response, added to {silence_ms:3}  {percentiles(added)}")
        rows.append(f"{name:12} barge-in to silence    {percentiles(cuts)}")
        rows.append(f"{name:12} {len(added)} of {len(turns)} turns answered")
    return "\n".join(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--silence-ms", type=int, default=200)
    args = parser.parse_args()
    taken = uvloop.run(measure(args.turns, args.rounds, args.silence_ms))
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}")
    print(f"{args.rounds} calls of {args.turns} turns each, interleaved; models take no time")
    print(report(taken, args.silence_ms))


if __name__ == "__main__":
    main()
