"""What a receiver adds to packets' delay, and which of them it plays, over networks of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .network import CLEAN, PACKET_S, Arrived, Conditions, arrivals
from .receive_path import Received

Receiver = Callable[[Sequence[Arrived], Sequence[bytes]], Received]
NETWORKS: Mapping[str, Conditions] = {
    "neither loss nor jitter": CLEAN,
    "2 % lost": Conditions(loss=0.02),
    "10 ms jitter, in order": Conditions(jitter_ms=10, in_order=True),
    "2 % lost, 10 ms jitter, uniform": Conditions(loss=0.02, jitter_ms=10, jitter="uniform"),
    "2 % lost, 10 ms jitter, normal": Conditions(loss=0.02, jitter_ms=10),
    "2 % lost, 10 ms jitter, exponential": Conditions(loss=0.02, jitter_ms=10, jitter="exponential"),
    "5 % lost in runs of 3, 10 ms jitter": Conditions(loss=0.05, burst_packets=3, jitter_ms=10),
    "10 % lost, 10 ms jitter, 2 % twice": Conditions(loss=0.10, jitter_ms=10, duplicated=0.02),
    "20 % lost, 10 ms jitter": Conditions(loss=0.20, jitter_ms=10),
    "30 ms jitter, packets overtaking": Conditions(jitter_ms=30),
}
DRIFTS_PPM = (500.0, -500.0)
LOST_AT_S = 2.0


@dataclass(frozen=True, slots=True)
class Taken:
    """One receiver on one network. A packet's delay is from when it came in (``held_ms``), or from when it had come
    without loss and jitter (``added_ms``), until it was played; ``came`` and ``played`` count packets once."""

    held_ms: NDArray[np.float64]
    added_ms: NDArray[np.float64]
    came: int
    played: int
    counters: Mapping[str, int]


def take(receiver: Receiver, arrived: Sequence[Arrived], packets: Sequence[bytes]) -> Taken:
    """Let a receiver hear what arrives."""
    received = receiver(arrived, packets)
    first = {packet.index: packet for packet in reversed(arrived)}
    held = [played_s - first[index].at_s for index, played_s in received.played_s.items()]
    added = [played_s - first[index].on_time_s for index, played_s in received.played_s.items()]
    return Taken(np.array(held) * 1000, np.array(added) * 1000, len(first), len(held), received.counters)


@dataclass(frozen=True, slots=True)
class AfterOneLoss:
    """``stall_ms``: how much later than usual packets were played, at most. ``back_ms``: from the lost one's time until
    the delay was what it was before; None if it never was."""

    stall_ms: float
    back_ms: float | None


def lose_one(receiver: Receiver, packets: Sequence[bytes]) -> AfterOneLoss:
    """Lose one packet of ten seconds."""
    lost = round(LOST_AT_S / PACKET_S)
    arrived = arrivals(CLEAN, 0, round(10 / PACKET_S))
    played_s = receiver([packet for packet in arrived if packet.index != lost], packets).played_s
    delay_ms = {index: (at_s - arrived[index].at_s) * 1000 for index, at_s in played_s.items()}
    usual_ms = delay_ms[0]
    late = [index for index in delay_ms if index > lost and delay_ms[index] > usual_ms + 1]
    back = next((index for index in sorted(delay_ms) if index > max(late, default=lost)), None)
    back_ms = None if back is None else (played_s[back] - arrived[lost].at_s) * 1000 - usual_ms
    return AfterOneLoss(max((delay_ms[index] - usual_ms for index in late), default=0.0), back_ms)


def drift(receiver: Receiver, packets: Sequence[bytes], ppm: float, minutes: float) -> tuple[float, float]:
    """Return, in ms, by how much the delay changes while the sender's clock drifts, and how much sound was added."""
    arrived = arrivals(Conditions(drift_ppm=ppm), 0, round(minutes * 60 / PACKET_S))
    received = receiver(arrived, packets)
    delay_s = [at_s - arrived[index].at_s for index, at_s in received.played_s.items()]
    sound_s = len(received.pcm) / 16_000 - len(arrived) * PACKET_S
    return (max(delay_s) - min(delay_s)) * 1000, sound_s * 1000
