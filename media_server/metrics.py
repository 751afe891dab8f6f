"""What `/metrics` tells: counted from the events of sessions and from the counters their parts keep.

Each `Metrics` has its own registry, so several servers in one process do not mix. Times are milliseconds.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as render
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from pipeline.events import EngineFailed, Event, ReplyFinished, ReplyInterrupted, SessionClosed, TurnMeasured

BUCKETS_MS = (10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 400, 500, 600, 800, 1000, 1500, 2000, 3000, 5000, 10_000)
LAG_BUCKETS_MS = (1, 2, 5, 10, 20, 40, 60, 100, 200, 500, 1000)

STAGES = tuple(field.name for field in fields(TurnMeasured) if field.name.endswith("_ms"))

Counts = Callable[[], Mapping[str, int]]
"""The counters a live call keeps, by the names in `CALL_COUNTERS`."""

CALL_COUNTERS = {
    "revoked_replies": "Replies prepared before the turn was over and thrown away because the caller went on",
    "late_frames": "Outgoing frames that left more than a frame late",
    "skipped_frames": "Outgoing frames given up to get back on time",
    "received_packets": "Audio packets received",
    "concealed_packets": "Audio packets that never came and were made up for by concealment",
    "recovered_packets": "Audio packets that never came and were recovered from forward error correction",
    "late_packets": "Audio packets that came too late to be heard",
    "duplicate_packets": "Audio packets that came twice",
}


class Metrics:
    """Counters, gauges and histograms of one server. Everything here is synchronous and cheap."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.calls = CallCounters()
        self.registry.register(self.calls)
        self.sessions = Gauge("vocal_sessions_active", "Sessions running now", registry=self.registry)
        self.session_ends = self._counter("sessions_ended", "Sessions that have ended, by why", "reason")
        self.refusals = self._counter("sessions_refused", "Offers refused before a session began, by why", "reason")
        self.barge_ins = self._counter("barge_ins", "Replies cut off after the caller had heard part of them")
        self.replies = self._counter("replies", "Replies the agent began, by how they ended", "outcome")
        self.failures = self._counter("engine_failures", "Failures of an engine, by stage", "stage")
        self.lag_ms = self._histogram("loop_lag_ms", "How late the event loop ran a timer", LAG_BUCKETS_MS)
        self.turn_ms = self._histogram(
            "turn_stage_ms", "When a stage was reached, after the caller's last speech sample", BUCKETS_MS, "stage"
        )

    def observe(self, event: Event) -> None:
        """Count one event of a session: a listener for ``session.subscribe``."""
        match event:
            case ReplyFinished():
                self.replies.labels("finished").inc()
            case ReplyInterrupted(heard=heard):
                self.replies.labels("interrupted").inc()
                self.barge_ins.inc(bool(heard))
            case EngineFailed(stage=stage, reply=reply):
                self.failures.labels(stage).inc()
                if reply is not None:
                    self.replies.labels("failed").inc()
            case TurnMeasured():
                self._observe_turn(event)
            case SessionClosed(reason=reason):
                self.sessions.dec()
                self.session_ends.labels(reason).inc()
            case _:
                pass

    def _observe_turn(self, turn: TurnMeasured) -> None:
        for stage in STAGES:
            value = getattr(turn, stage)
            if value is not None:
                self.turn_ms.labels(stage.removesuffix("_ms")).observe(value)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return render(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"vocal_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[int, ...], *labels: str) -> Histogram:
        return Histogram(f"vocal_{name}", text, labels, buckets=buckets, registry=self.registry)


class CallCounters(Collector):
    """The sums of the counters that calls keep themselves: those that ended plus those that run."""

    def __init__(self) -> None:
        self._ended: Tally[str] = Tally()
        self._running: dict[object, Counts] = {}

    def open(self, call: object, counts: Counts) -> None:
        """Ask ``counts`` at each scrape until ``close``; several of one call add up under different keys."""
        self._running[call] = counts

    def close(self, call: object) -> None:
        """Take the call's last counts into the sums. An unknown call is none."""
        counts = self._running.pop(call, None)
        if counts is not None:
            self._ended.update(counts())

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield one counter per name."""
        sums = self._ended.copy()
        for counts in self._running.values():
            sums.update(counts())
        for name, text in CALL_COUNTERS.items():
            yield CounterMetricFamily(f"vocal_{name}", text, value=sums[name])
