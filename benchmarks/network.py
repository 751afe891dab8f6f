"""A network that loses, delays, reorders and duplicates packets, the same ones each time it has the same seed.

It knows no clock: it says what becomes of each packet in turn. ``arrivals`` asks it in virtual time, ``relay`` while a
call goes on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

PACKET_S = 0.020

Jitter = Literal["uniform", "normal", "exponential"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a network does to packets; shares are of 1.

    A packet takes ``delay_ms`` on average, and around that ``jitter_ms``: uniform within plus and minus so much, normal
    with that deviation, or exponential with that deviation. Packets overtake each other, but where ``in_order`` says
    that they queue. ``loss`` comes in runs of ``burst_packets`` on average, or at random (0). The sender's clock is
    ``drift_ppm`` fast.
    """

    delay_ms: float = 40.0
    loss: float = 0.0
    burst_packets: float = 0.0
    jitter_ms: float = 0.0
    jitter: Jitter = "normal"
    in_order: bool = False
    duplicated: float = 0.0
    drift_ppm: float = 0.0


CLEAN = Conditions()
DIRECT = Conditions(delay_ms=0.0)


class Network:
    """One direction of a path. Losses are Gilbert's chain of two states: in the bad one packets are lost."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self._conditions = conditions
        self._random = random.Random(seed)
        self._bad = False

    def delays_s(self) -> list[float]:
        """Return how long each copy of the next packet takes; none if it is lost."""
        copies = 1 + (self._random.random() < self._conditions.duplicated)
        delays_s = [max(0.0, self._conditions.delay_ms / 1000 + self._jitter_s()) for _ in range(copies)]
        return [] if self._lost() else delays_s

    def _lost(self) -> bool:
        conditions = self._conditions
        burst = conditions.burst_packets or 1 / (1 - conditions.loss)
        leaves, enters = 1 / burst, conditions.loss / (1 - conditions.loss) / burst
        draw = self._random.random()
        self._bad = draw >= leaves if self._bad else draw < enters
        return self._bad

    def _jitter_s(self) -> float:
        jitter_s = self._conditions.jitter_ms / 1000
        match self._conditions.jitter:
            case "uniform":
                return self._random.uniform(-jitter_s, jitter_s)
            case "normal":
                return self._random.gauss(0, jitter_s)
            case "exponential":
                return self._random.expovariate(1) * jitter_s - jitter_s


@dataclass(frozen=True, slots=True)
class Arrived:
    """A packet by its number. ``on_time_s`` is when it had come without loss and jitter."""

    index: int
    at_s: float
    on_time_s: float


def arrivals(conditions: Conditions, seed: int, packets: int) -> list[Arrived]:
    """Return what arrives of ``packets``, one each 20 ms of the sender's clock, in the order in which it does."""
    network = Network(conditions, seed)
    arrived: list[Arrived] = []
    last_s = 0.0
    for index in range(packets):
        sent_s = index * PACKET_S / (1 + conditions.drift_ppm / 1e6)
        for delay_s in network.delays_s():
            at_s = max(sent_s + delay_s, last_s) if conditions.in_order else sent_s + delay_s
            last_s = max(last_s, at_s)
            arrived.append(Arrived(index, at_s, sent_s + conditions.delay_ms / 1000))
    return sorted(arrived, key=lambda packet: packet.at_s)
