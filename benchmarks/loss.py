"""Loss, jitter and drift: what they add to delay, what is played, what is left of speech, and what a call notices.

    pip install pesq pystoi
    python -m benchmarks.loss [--seeds 5] [--minutes 2] [--turns 20] [--rounds 3]

The receive path alone, in virtual time: recorded speech, encoded as a browser does (Opus, 40 kb/s, 20 ms, its FEC told
of the loss), a network that a seed decides, then this server's ``Microphone`` or aiortc's own receiver, which hear the
same packets in turns. Then calls: whole ones in virtual time; and real ones on loopback, whose packets a seeded relay
in the caller's process delays and drops. Models are stand-ins that take no time. A range is of the seeds, lowest to
highest; the interval of what calls take is where it lies in 95 % of resampled runs. Without ``pesq`` and ``pystoi`` all
but the speech is measured.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import uvloop

from . import lossy_call, receive_delay, speech_quality, virtual_call
from .lossy_call import SILENCE_MS
from .network import CLEAN, PACKET_S, Conditions, arrivals
from .receive_delay import DRIFTS_PPM, NETWORKS, Receiver, Taken
from .receive_path import browser_packets, receive, receive_in_aiortc, recorded_speech, without_libopus
from .servers import machine
from .speech_quality import Missing

RECEIVERS: Mapping[str, Receiver] = {"Vocal Node": receive, "aiortc": receive_in_aiortc}
TOLD_PERCENT = 10
LOSSES_PERCENT = (0, 2, 5, 10, 20)
HELD_BACK = 16
"""More packets than are measured: aiortc's receiver plays nothing before so many more have come."""
QUALITY_WAYS: Mapping[str, tuple[bool, Receiver]] = {
    "with FEC": (True, receive),
    "concealed only": (False, receive),
    "concealed, no libopus": (False, lambda arrived, packets: receive(arrived, packets, without_libopus)),
    "aiortc": (False, receive_in_aiortc),
}
CALL_NETWORKS: Mapping[str, Conditions] = {
    "neither": CLEAN,
    "2 % lost, 10 ms jitter": Conditions(loss=0.02, jitter_ms=10),
}
RESAMPLED = 2000


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


# --- delay


def delays(packets: Sequence[bytes], seeds: int, minutes: float) -> str:
    """Measure every network with each of both receivers; return the table."""
    rows = []
    for network, conditions in NETWORKS.items():
        taken: dict[str, list[Taken]] = {name: [] for name in RECEIVERS}
        for seed in range(seeds):
            arrived = arrivals(conditions, seed, round(minutes * 60 / PACKET_S))
            for name, receiver in RECEIVERS.items():
                taken[name].append(receive_delay.take(receiver, arrived, packets))
        rows += [_delay_row(network, name, each) for name, each in taken.items()]
    head = ["network", "", "held p50 / p95 / p99", "added p50 / p95 / p99", "p95 of seeds", "played", "of seeds"]
    return table([*head, "lost, recovered"], rows)


def _delay_row(network: str, name: str, taken: Sequence[Taken]) -> list[str]:
    p95s = [float(np.percentile(each.added_ms, 95)) for each in taken]
    shares = [100 * each.played / each.came for each in taken]
    lost, recovered = (sum(each.counters.get(key, 0) for each in taken) for key in ("lost", "recovered"))
    return [
        network,
        name,
        _percentiles(np.concatenate([each.held_ms for each in taken])),
        _percentiles(np.concatenate([each.added_ms for each in taken])),
        f"{min(p95s):.0f} to {max(p95s):.0f}",
        f"{100 * sum(each.played for each in taken) / sum(each.came for each in taken):.2f} %",
        f"{min(shares):.2f} to {max(shares):.2f}",
        f"{100 * recovered / lost:.0f} %" if lost else "",
    ]


def _percentiles(ms: Sequence[float] | np.typing.NDArray[np.float64]) -> str:
    return " / ".join(f"{value:.1f}" for value in np.percentile(ms, [50, 95, 99]))


def incidents(packets: Sequence[bytes], minutes: float) -> str:
    """Measure one lost packet, and clocks that drift; return the table."""
    rows = []
    for name, receiver in RECEIVERS.items():
        after = receive_delay.lose_one(receiver, packets)
        back = "never" if after.back_ms is None else f"{after.back_ms:.0f} ms"
        row = [name, f"{after.stall_ms:.0f} ms", back]
        for ppm in DRIFTS_PPM:
            changed_ms, sound_ms = receive_delay.drift(receiver, packets, ppm, minutes)
            row.append(f"{changed_ms:.1f} ms, sound {sound_ms:+.0f} ms")
        rows.append(row)
    head = ["", "stall after one loss", "delay as before after"]
    return table([*head, *(f"{ppm:+.0f} ppm for {minutes:g} min" for ppm in DRIFTS_PPM)], rows)


# --- speech


def qualities(seeds: int) -> str:
    """Measure what is left of speech; return the table. Raises Missing for the libraries that measure it."""
    spoken = recorded_speech()
    silent_samples = round(PACKET_S * 16_000)
    measured: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for percent in LOSSES_PERCENT:
        packets = {fec: browser_packets(spoken, percent, fec=fec) for fec in (True, False)}
        count = len(packets[True]) + HELD_BACK
        whole = arrivals(CLEAN, 0, count)
        lags = {name: speech_quality.delay(way(whole, packets[fec]).pcm, spoken) for name, (fec, way) in WAYS}
        for seed in range(seeds if percent else 1):
            arrived = arrivals(Conditions(loss=percent / 100), seed, count)
            for name, (fec, way) in WAYS:
                before = np.zeros(arrived[0].index * silent_samples, np.int16)
                heard = np.concatenate([before, way(arrived, packets[fec]).pcm])
                found = speech_quality.quality(heard, spoken, lags[name])
                measured.setdefault((percent, name), []).append(found)
    rows = [
        [f"{percent} %", *(_quality_cell(measured[percent, name]) for name in QUALITY_WAYS)]
        for percent in LOSSES_PERCENT
    ]
    return table(["lost", *QUALITY_WAYS], rows)


WAYS = tuple(QUALITY_WAYS.items())


def _quality_cell(found: Sequence[tuple[float, float]]) -> str:
    pesq, stoi = np.array(found).T
    between = f" ({pesq.min():.2f} to {pesq.max():.2f})" if len(found) > 1 else ""
    return f"{pesq.mean():.2f}{between} / {stoi.mean():.2f}"


# --- calls


def virtual_calls(seeds: int, turns: int) -> str:
    """Hold calls in virtual time; return the table of what networks add to response latency."""
    rows, usual_ms = [], 0.0
    for network, conditions in NETWORKS.items():
        taken = [ms for seed in range(seeds) for ms in virtual_call.responses_ms(conditions, seed, turns)]
        answered = [ms for ms in taken if ms is not None]
        usual_ms = usual_ms or float(np.median(answered))
        added = np.array(answered) - usual_ms
        rows.append([network, _percentiles(added), f"{added.max():.1f}", f"{len(answered)} of {len(taken)}"])
    return table(["network, both ways", "added p50 / p95 / p99", "max", "turns answered"], rows)


def calls(turns: int, rounds: int) -> Iterator[str]:
    """Hold calls; yield a table and what the server has counted."""
    taken = uvloop.run(lossy_call.measure(CALL_NETWORKS, turns, rounds))
    rows = []
    for name, each in taken.items():
        ms = each.added_ms()
        rows.append([name, _percentiles(ms), f"{max(ms):.1f}", f"{len(ms)} of {len(each.turns)}"])
    yield table(["network", f"added to {SILENCE_MS} ms p50 / p95 / p99", "max", "turns answered"], rows)
    without, under = (each.added_ms() for each in taken.values())
    for percent in (50, 95):
        median, low, high = _difference(without, under, lambda ms, p=percent: np.percentile(ms, p))  # type: ignore[misc]
        yield f"p{percent}: {median:+.1f} ms by loss and jitter (95 %: {low:+.1f} to {high:+.1f})"
    for name, each in taken.items():
        yield f"{name}: " + ", ".join(f"{key} {count}" for key, count in each.counters.items() if count)


def _difference(
    a: Sequence[float], b: Sequence[float], statistic: Callable[[np.typing.NDArray[np.float64]], float]
) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.choice(b, len(b))) - statistic(rng.choice(a, len(a))) for _ in range(RESAMPLED)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(statistic(np.array(b)) - statistic(np.array(a))), float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=2.0, help="of packets for each seed and network")
    parser.add_argument("--drift-minutes", type=float, default=10.0)
    parser.add_argument("--virtual-turns", type=int, default=40, help="of each call in virtual time")
    parser.add_argument("--turns", type=int, default=20, help="of each call; 0 holds no calls")
    parser.add_argument("--rounds", type=int, default=3, help="calls over each network")
    args = parser.parse_args(arguments)
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}\n")
    packets = browser_packets(recorded_speech(), TOLD_PERCENT)
    print(f"delay in ms; {args.seeds} networks of {args.minutes:g} min each, in virtual time\n")
    print(delays(packets, args.seeds, args.minutes), end="\n\n")
    print(incidents(packets, args.drift_minutes), end="\n\n")
    try:
        print(f"PESQ (wideband) / STOI against the recording, {args.seeds} networks\n")
        print(qualities(args.seeds), end="\n\n")
    except Missing as missing:
        print(f"not measured: {missing}\n")
    print(f"response latency in ms, {args.seeds} calls of {args.virtual_turns} turns in virtual time\n")
    print(virtual_calls(args.seeds, args.virtual_turns), end="\n\n")
    if args.turns:
        print(f"{args.rounds} calls of {args.turns} turns over each network, in turns, on loopback\n")
        print("\n".join(calls(args.turns, args.rounds)))


if __name__ == "__main__":
    main()
