"""What `/metrics` tells: counted from the events of sessions and from the counters their parts keep.

Each `Metrics` has its own registry, so several servers in one process do not mix. Times are milliseconds.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client import generate_latest as render
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from compat_ws.backend import Outcome, ServiceListener
from pipeline.engines import Kind
from pipeline.events import EngineFailed, Event, ReplyFinished, ReplyInterrupted, TurnMeasured

from .recent import Recent

BUCKETS_MS = (10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 400, 500, 600, 800, 1000, 1500, 2000, 3000, 5000, 10_000)
LAG_BUCKETS_MS = (1, 2, 5, 10, 20, 40, 60, 100, 200, 500, 1000)

RECENT_TURNS = 200
RECENT_LAGS = 600
"""A minute of them."""

STAGES = tuple(field.name.removesuffix("_ms") for field in fields(TurnMeasured) if field.name.endswith("_ms"))

CALL_COUNTERS = {
    "revoked_replies": "Replies prepared before the turn was over and thrown away because the caller went on",
    "echo_ms": "Sound that would have been speech, but was the agent's own voice coming back",
    "late_frames": "Outgoing frames that left more than a frame late",
    "skipped_frames": "Outgoing frames given up to get back on time",
    "dropped_messages": "Messages of a data channel or WebSocket dropped at a bound",
    "microphone_received": "Audio packets received",
    "microphone_lost": "Audio packets that never came",
    "microphone_recovered": "Lost audio packets recovered from forward error correction",
    "microphone_concealed": "Lost audio packets made up for",
    "microphone_late": "Audio packets that came too late to be heard",
    "microphone_duplicate": "Audio packets that came twice",
    "microphone_reordered": "Audio packets that came out of order, and in time",
    "microphone_undecodable": "Audio packets that were none",
}
"""The counters that calls keep themselves, by the names they have there."""


class CountedTransport(Protocol):
    """A call's connection as far as it is counted."""

    def counts(self) -> Mapping[str, int]:
        """Return its counters by name."""
        ...

    def watch_lateness(self, observe: Callable[[float], None]) -> None:
        """Call ``observe`` with how late each outgoing frame leaves, in ms."""
        ...


class CountedEcho(Protocol):
    """What tells the agent's own voice from the caller's, as far as it is counted."""

    @property
    def returned_ms(self) -> int:
        """How much was taken for the agent's own voice."""
        ...


class CountedAnswering(Protocol):
    """The agent's half of a session as far as it is counted."""

    @property
    def echo(self) -> CountedEcho:
        """Its voice, coming back."""
        ...


class CountedSession(Protocol):
    """A session as far as it is counted."""

    @property
    def revoked_replies(self) -> int:
        """Replies prepared in vain."""
        ...

    @property
    def answering(self) -> CountedAnswering:
        """The agent's half."""
        ...


class CountedCall(Protocol):
    """A call as far as it is counted; one that only listens to another's is not."""

    @property
    def transport(self) -> CountedTransport:
        """Its connection."""
        ...

    @property
    def session(self) -> CountedSession:
        """Its conversation."""
        ...

    @property
    def listens_to(self) -> str | None:
        """The call it listens to, if any."""
        ...


class Metrics:
    """Counters, gauges and histograms of one server. Everything here is synchronous and cheap."""

    def __init__(self) -> None:
        # a second series beside each counter, which nobody reads
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._process = ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.calls = CallCounts()
        self.registry.register(self.calls)
        self.sessions = Gauge("vocal_sessions_active", "Sessions running now", registry=self.registry)
        self.sessions_started = self._counter("sessions", "Sessions that have begun")
        self.session_ends = self._counter("sessions_ended", "Sessions that have ended, by why", "reason")
        self.refusals = self._counter("sessions_refused", "Offers refused before a session began, by why", "reason")
        self.barge_ins = self._counter("barge_ins", "Replies cut off after the caller had heard part of them")
        self.replies = self._counter("replies", "Replies the agent began, by how they ended", "outcome")
        self.failures = self._counter("engine_failures", "Failures of an engine, by stage", "stage")
        self.lag_ms = self._histogram("loop_lag_ms", "How late the event loop ran a timer", LAG_BUCKETS_MS)
        self.frame_late_ms = self._histogram(
            "frame_late_ms", "How late outgoing frames left, against the earliest on their timeline", LAG_BUCKETS_MS
        )
        self.requests = self._counter("engine_requests", "Requests to a service, by how they ended", "stage", "outcome")
        self.requests_running = Gauge(
            "vocal_engine_requests_running", "Requests to a service running now", ("stage",), registry=self.registry
        )
        self.outputs = self._counter("engine_outputs", "Transcripts, deltas and pieces of audio given out", "stage")
        self.turn_ms = self._histogram(
            "turn_stage_ms", "When a stage was reached, after the caller's last speech sample", BUCKETS_MS, "stage"
        )
        self.failed_s: dict[str, float] = {}
        """When each stage failed last, on the monotonic clock."""
        self.recent_turns = Recent(RECENT_TURNS)
        self.recent_lags = Recent(RECENT_LAGS)

    def call_opened(self, call: CountedCall) -> None:
        """Count a call that has begun."""
        if call.listens_to is None:
            self.sessions.inc()
            self.sessions_started.inc()
            self.calls.add(call)
        call.transport.watch_lateness(self.frame_late_ms.observe)

    def call_closed(self, call: CountedCall, reason: str) -> None:
        """Count a call that has ended. ``reason`` is one of few."""
        if call.listens_to is None:
            self.sessions.dec()
            self.session_ends.labels(reason).inc()
            self.calls.remove(call)

    def refused(self, reason: str) -> None:
        """Count an offer that was turned away. ``reason`` is one of few."""
        self.refusals.labels(reason).inc()

    def lagged(self, late_ms: float) -> None:
        """Count how late the event loop ran a timer."""
        self.lag_ms.observe(late_ms)
        self.recent_lags.add(lag=late_ms)

    def services(self) -> ServiceListener:
        """Return what counts the requests to services."""
        return ServiceListener(
            begun=lambda kind: self.requests_running.labels(kind).inc(),
            produced=lambda kind: self.outputs.labels(kind).inc(),
            ended=self._request_ended,
        )

    def _request_ended(self, kind: Kind, outcome: Outcome) -> None:
        self.requests_running.labels(kind).dec()
        self.requests.labels(kind, outcome).inc()

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
                self.failed_s[stage] = time.monotonic()
                if reply is not None:
                    self.replies.labels("failed").inc()
            case TurnMeasured():
                self._observe_turn(event)
            case _:
                pass

    def _observe_turn(self, turn: TurnMeasured) -> None:
        if not turn.was_spoken:
            return
        values = {stage: getattr(turn, f"{stage}_ms") for stage in STAGES}
        reached = {stage: value for stage, value in values.items() if value is not None}
        for stage, value in reached.items():
            self.turn_ms.labels(stage).observe(value)
        self.recent_turns.add(**reached)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return render(self.registry)

    def process(self) -> dict[str, float]:
        """Return what the system says of this process, by the names of ``/metrics``; empty where it says nothing."""
        return {family.name: family.samples[0].value for family in self._process.collect()}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"vocal_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[int, ...], *labels: str) -> Histogram:
        return Histogram(f"vocal_{name}", text, labels, buckets=buckets, registry=self.registry)


def totals(counter: Counter) -> dict[str, int]:
    """Return a counter's values by its label, or by an empty name where it has none."""
    (family,) = counter.collect()
    counted = [sample for sample in family.samples if sample.name.endswith("_total")]
    return {next(iter(sample.labels.values()), ""): int(sample.value) for sample in counted}


class CallCounts(Collector):
    """The sums of the counters that calls keep themselves: those that have ended plus those that run."""

    def __init__(self) -> None:
        self._ended: Tally[str] = Tally()
        self._running: set[CountedCall] = set()

    def add(self, call: CountedCall) -> None:
        """Ask this call at each scrape until it is removed."""
        self._running.add(call)

    def remove(self, call: CountedCall) -> None:
        """Take the call's last counts into the sums. Removing it twice is harmless."""
        if call in self._running:
            self._running.remove(call)
            self._ended.update(_counts(call))

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield one counter per name."""
        sums = self._ended.copy()
        for call in self._running:
            sums.update(_counts(call))
        for name, text in CALL_COUNTERS.items():
            yield CounterMetricFamily(f"vocal_{name}", text, value=sums[name])


def _counts(call: CountedCall) -> Mapping[str, int]:
    session = call.session
    kept = {"revoked_replies": session.revoked_replies, "echo_ms": session.answering.echo.returned_ms}
    return {**call.transport.counts(), **kept}
