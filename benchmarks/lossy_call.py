"""A real call over a lossy network: what loss and jitter add to response latency, with all else the same.

The caller and the relay are in this process, the server in another; set-up is spared, the rest of the call goes through
the relay both ways. Calls with and without loss take turns, the caller speaking with the same pauses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from .measuring_caller import Turn, call
from .network import Conditions
from .relay import Relay
from .servers import running, vocal_node

SILENCE_MS = 200
ANSWER = {"VOCAL_ECHO_TEXT": "Yes, it is."}
"""Short, and heard out: what comes late of an answer is not taken for the next."""
COUNTER = re.compile(r"^vocal_microphone_(\w+)_total (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Taken:
    """Every turn under one set of conditions, and what was counted: by the relay (``dropped``) and by the server."""

    turns: list[Turn] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)

    def added_ms(self) -> list[float]:
        """Return what each answered turn took beyond the silence rule."""
        return [turn.response_s * 1000 - SILENCE_MS for turn in self.turns if turn.response_s is not None]


async def measure(networks: Mapping[str, Conditions], turns: int, rounds: int) -> dict[str, Taken]:
    """Take ``rounds`` calls of ``turns`` turns each over every network, in turns."""
    taken = {name: Taken() for name in networks}
    for seed in range(rounds):
        for name, conditions in networks.items():
            await _call(taken[name], conditions, turns, seed)
    return taken


async def _call(taken: Taken, conditions: Conditions, turns: int, seed: int) -> None:
    relay = await Relay.open()
    try:
        async with running(*vocal_node(SILENCE_MS, ANSWER)) as url, call(url, seed, relay) as caller:
            relay.use(conditions, seed)
            taken.turns += await caller.take_turns(turns, interrupt=False)
            taken.counters["sent"] += relay.sent
            taken.counters["dropped"] += relay.lost
            taken.counters.update(await _counted(url))
    finally:
        relay.close()


async def _counted(url: str) -> dict[str, int]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as response:
        response.raise_for_status()
        return {name: int(float(value)) for name, value in COUNTER.findall(await response.text())}
