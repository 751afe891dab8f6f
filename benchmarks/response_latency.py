"""Response latency, barge-in and CPU of a call: this server, bare aiortc, Pipecat and FastRTC side by side.

    python -m benchmarks.response_latency [--rounds 5] [--turns 20] [--peers pipecat,fastrtc | none]
                                          [--silence-ms 200,300] [--delays 40,120,90] [--abreast 2]

Response latency: the caller's last sample was spoken to the first audible packet arrived; "added" is that less the
silence rule, which has to be waited out anyway. Barge-in: the caller's first sample was spoken to the last audible
packet arrived. CPU: of the server's processes while the call goes on, in percent of one core, median of the rounds.
Loopback; each server in its own process, the callers in another, ``--abreast`` calls at a time, the servers taking
turns within each round.

Models are stand-ins: at first they take no time; then transcription, first token and first speech take ``--delays``.
The floor is what no server can be faster than (see ``benchmarks/floor.py``). Peers are installed from PyPI into
``build/peers``, once.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import numpy as np
import uvloop

from .contenders import SPEECH_MS, Contender, contenders
from .cpu import share, used_s
from .floor import Floor, floor
from .measuring_caller import Turn, call
from .peers import FRAMEWORKS, Framework
from .servers import Server, machine, started
from .stand_ins import Rules

SPEECH_S = 0.4
PAUSE_S = (0.1, 0.25)
READY_S = 120.0
COLUMNS = ("ms", "p50", "p95", "p99", "max", "barge-in p50 / p95", "CPU of a core", "answered")


@dataclass(slots=True)
class Taken:
    """What became of one contender: every turn that was asked for, the CPU of each call, and what went wrong."""

    contender: Contender
    turns: list[Turn] = field(default_factory=list)
    cpu_percent: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def call(self, server: Server, turns: int, seed: int) -> None:
        """Take ``turns`` turns in one call; those of a call that fails count as not answered."""
        before = len(self.turns)
        try:
            async with call(server.url, seed, path=self.contender.path) as caller:
                began_s, used_before_s = time.monotonic(), used_s(server.pid)
                interrupt = self.contender.interrupted
                self.turns += await caller.take_turns(turns, SPEECH_S, PAUSE_S, interrupt=interrupt)
                percent = share(used_before_s, used_s(server.pid), time.monotonic() - began_s)
                self.cpu_percent += [] if percent is None else [percent]
        except Exception as error:  # whatever a server or a library does wrong, the others are measured
            self.fail(error)
        self.turns += [Turn(None, None)] * (before + turns - len(self.turns))

    def fail(self, error: Exception) -> None:
        """Note it, to be told below the table."""
        self.failures.append(f"{self.contender.name}: {type(error).__name__}: {error}")


async def measure(
    cases: Sequence[Rules], frameworks: Sequence[Framework], turns: int, rounds: int, abreast: int
) -> list[list[Taken]]:
    """Return what each contender did in each case: one call a round, in turns, ``abreast`` at a time."""
    taken = [[Taken(contender) for contender in contenders(rules, frameworks)] for rules in cases]
    flat = [one for case in taken for one in case]
    async with AsyncExitStack() as stack:
        servers: dict[int, Server] = {}
        for i, one in enumerate(flat):
            try:
                command, environment = one.contender.command, one.contender.environment
                servers[i] = await stack.enter_async_context(started(command, environment, READY_S))
            except (OSError, RuntimeError, TimeoutError) as error:
                one.fail(error)
                one.turns = [Turn(None, None)] * (turns * rounds)
        order = deque(servers)
        for round_ in range(rounds):
            for at_once in side_by_side(order, abreast, {i for i in order if flat[i].contender.alone}):
                await asyncio.gather(*(flat[i].call(servers[i], turns, seed=round_) for i in at_once))
            order.rotate(1)  # beside others in the next round
    return taken


def side_by_side(order: Iterable[int], abreast: int, alone: Set[int]) -> list[list[int]]:
    """Return who is called at the same time, one group after the other."""
    groups: list[list[int]] = []
    for i in order:
        if not groups or len(groups[-1]) >= abreast or i in alone or groups[-1][-1] in alone:
            groups.append([])
        groups[-1].append(i)
    return groups


async def install(names: Sequence[str]) -> tuple[list[Framework], list[str]]:
    """Install frameworks; return those that are there, and what is to be said of the others."""
    there, failures = [], []
    for name in names:
        try:
            await FRAMEWORKS[name].install()
            there.append(FRAMEWORKS[name])
        except (OSError, RuntimeError) as error:
            failures.append(f"{name} could not be installed and is not measured: {error}")
    return there, failures


def added_s(turns: Sequence[Turn], silence_ms: float) -> list[float]:
    """Return what each answered turn took beyond the silence rule."""
    return [turn.response_s - silence_ms / 1000 for turn in turns if turn.response_s is not None]


def percentiles(ms: Sequence[float] | np.typing.NDArray[np.float64], *of: float) -> list[str]:
    """Return these percentiles; a dash for each if there is nothing."""
    return [f"{value:.1f}" for value in np.percentile(ms, of)] if len(ms) else ["–" for _ in of]


def row(*cells: str) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def report(rules: Rules, taken: Sequence[Taken]) -> str:
    """Return the table of one case, and what its floor is made of."""
    least = floor(rules)
    lines = [
        f"Silence rule {rules.silence_ms:g} ms, {_models(rules)}; response latency, added to {rules.silence_ms:g}:\n",
        row(*COLUMNS),
        row(*["---"] * len(COLUMNS)),
        *(_row(one, rules) for one in taken),
        row("floor", *percentiles(least.response_ms, 50, 95, 99, 100), _pair(least.barge_in_ms), "", ""),
        f"\n{_parts(least, rules)}",
        *(f"\n{failure}" for one in taken for failure in dict.fromkeys(one.failures)),
    ]
    return "\n".join(lines)


def _row(one: Taken, rules: Rules) -> str:
    added_ms = [1000 * seconds for seconds in added_s(one.turns, rules.silence_ms)]
    cuts_ms = [1000 * turn.cut_s for turn in one.turns if turn.cut_s is not None]
    cpu = f"{np.median(one.cpu_percent):.1f} %" if one.cpu_percent else "–"
    answered = f"{len(added_ms)} of {len(one.turns)}"
    return row(one.contender.name, *percentiles(added_ms, 50, 95, 99, 100), _pair(cuts_ms), cpu, answered)


def _pair(ms: Sequence[float] | np.typing.NDArray[np.float64]) -> str:
    return " / ".join(percentiles(ms, 50, 95))


def _models(rules: Rules) -> str:
    if not rules.models_ms:
        return "models take no time"
    figures = f"{rules.transcription_ms:g}, first token {rules.first_token_ms:g}, first speech {rules.first_sound_ms:g}"
    return f"transcription takes {figures} ms"


def _parts(least: Floor, rules: Rules) -> str:
    parts = (
        f"until the packet is there in which the rule is met {least.packet_ms:.1f} (mean), codec {least.codec_ms:.1f}"
    )
    models = f", models beyond the rule {least.models_ms:.1f}" if rules.models_ms else ""
    return f"The floor, in ms: {parts}{models}; of its barge-in, {rules.speech_ms:g} are the speech that interrupts."


def cases(silences_ms: Sequence[float], delays_ms: Sequence[float]) -> Iterator[Rules]:
    """Yield the rules to measure: models that take no time under the first silence rule, then the delays under each."""
    yield Rules(silences_ms[0], SPEECH_MS)
    if any(delays_ms):
        for silence_ms in silences_ms:
            yield Rules(silence_ms, SPEECH_MS, *delays_ms)


def numbers(text: str) -> list[float]:
    """Read numbers with commas between them."""
    return [float(part) for part in text.split(",")]


async def main() -> None:
    """Install, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--peers", default=",".join(FRAMEWORKS), help="with commas between them; or none")
    parser.add_argument("--silence-ms", type=numbers, default=[200.0, 300.0])
    parser.add_argument(
        "--delays", type=numbers, default=[40.0, 120.0, 90.0], help="0,0,0: only models that take no time"
    )
    parser.add_argument("--abreast", type=int, default=2, help="calls at a time; 1 takes twice as long")
    args = parser.parse_args()
    names = [] if args.peers == "none" else args.peers.split(",")
    if unknown := set(names) - set(FRAMEWORKS):
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(FRAMEWORKS)}")
    if len(args.delays) != 3:
        parser.error("--delays are three: transcription, first token, first speech")
    frameworks, failures = await install(names)
    measured = list(cases(args.silence_ms, args.delays))
    taken = await measure(measured, frameworks, args.turns, args.rounds, args.abreast)
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}")
    print(
        f"{args.rounds} calls of {args.turns} turns each a server and table, in turns, {args.abreast} at a time",
        *failures,
        sep="\n",
    )
    for rules, case in zip(measured, taken, strict=True):
        print(f"\n{report(rules, case)}")


if __name__ == "__main__":
    uvloop.run(main())
