"""What ``GET /api/status`` tells: how the server is at this moment, in the numbers that ``/metrics`` counts.

Everything in it is bounded, and nothing in it names what was said, a key or a whole call id, with which anybody could
hang up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit

from pipeline.engines import Chosen, Kind

from .engine_set import EngineSet
from .hub import Call, Hub
from .log import Complaints, Line
from .metrics import STAGES, Metrics, totals
from .recent import Percentiles
from .supervisor import Supervisor

MAX_SESSIONS_SHOWN = 200
"""The newest ones: the answer stays short, and is made between two frames."""

PACKETS = ("received", "lost", "recovered", "concealed")


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A call. ``packets`` is None where there are none; ``response_ms`` is the last turn's."""

    id: str
    way: str
    agent: str
    state: str
    length_s: float
    turns: int
    packets: Mapping[str, int] | None
    response_ms: float | None


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine in use. ``own``: the server's own choice, not one that an agent named.

    ``runs_on`` is ``this process``, ``service process`` or a URL; ``device`` None where the engine does not tell.
    ``failures`` are those in calls of all engines of its kind, the last of them ``failed_s_ago``.
    """

    kind: Kind
    name: str
    why: str
    own: bool
    runs_on: str
    device: str | None
    healthy: bool
    why_not: str | None
    failures: int
    failed_s_ago: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the process began."""

    started: int
    ended: Mapping[str, int]
    refused: Mapping[str, int]
    barge_ins: int
    replies: Mapping[str, int]
    failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Process:
    """What the system says of it; None where it says nothing. Service processes are not in it."""

    cpu_s: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. ``why_not`` says why no further call is let in; ``stages`` are of the last ``window_turns`` turns."""

    version: str
    uptime_s: float
    draining: bool
    ready: bool
    why_not: str | None
    max_sessions: int
    running_sessions: int
    process: Process
    loop_lag: Percentiles
    sessions: list[SessionStatus]
    totals: Totals
    engines: list[EngineStatus]
    window_turns: int
    stages: Mapping[str, Percentiles]
    errors: list[Line]


@dataclass(frozen=True, slots=True)
class StatusBoard:
    """Where the numbers come from."""

    version: str
    hub: Hub
    metrics: Metrics
    engines: EngineSet
    supervisor: Supervisor
    complaints: Complaints
    why_not_ready: Callable[[], Awaitable[str | None]]
    since_s: float

    async def now(self) -> Status:
        """Return them. Engines elsewhere are asked whether they answer, for 2 s at most; the rest takes no time."""
        engines, why_not = await asyncio.gather(self._engines(), self.why_not_ready())
        metrics, process = self.metrics, self.metrics.process()
        return Status(
            version=self.version,
            uptime_s=round(time.monotonic() - self.since_s, 1),
            draining=self.hub.draining,
            ready=why_not is None,
            why_not=why_not,
            max_sessions=self.hub.max_sessions,
            running_sessions=self.hub.sessions,
            process=Process(process.get("process_cpu_seconds"), _whole(process.get("process_resident_memory_bytes"))),
            loop_lag=metrics.recent_lags.percentiles("lag"),
            sessions=list(self._sessions()),
            totals=self._totals(),
            engines=engines,
            window_turns=metrics.recent_turns.window,
            stages={stage: metrics.recent_turns.percentiles(stage) for stage in STAGES},
            errors=self.complaints.newest_first(),
        )

    def _sessions(self) -> Iterator[SessionStatus]:
        now_s = time.monotonic()
        calls = (call for call in reversed(self.hub.calls.values()) if call.listens_to is None)
        return (_session(call, now_s) for call in islice(calls, MAX_SESSIONS_SHOWN))

    def _totals(self) -> Totals:
        metrics = self.metrics
        return Totals(
            started=totals(metrics.sessions_started)[""],
            ended=totals(metrics.session_ends),
            refused=totals(metrics.refusals),
            barge_ins=totals(metrics.barge_ins)[""],
            replies=totals(metrics.replies),
            failures=totals(metrics.failures),
        )

    async def _engines(self) -> list[EngineStatus]:
        in_use = list(self.engines.in_use())
        reasons = await asyncio.gather(*(self._why_not(kind, chosen) for kind, chosen in in_use))
        failures = totals(self.metrics.failures)
        return [
            self._engine(kind, chosen, reason, failures.get(kind, 0))
            for (kind, chosen), reason in zip(in_use, reasons, strict=True)
        ]

    def _engine(self, kind: Kind, chosen: Chosen, why_not: str | None, failures: int) -> EngineStatus:
        failed_s = self.metrics.failed_s.get(kind)
        return EngineStatus(
            kind=kind,
            name=chosen.name,
            why=chosen.why.removeprefix(f"{kind} {chosen.name}: "),
            own=self.engines.served().get(kind) is chosen,
            runs_on=self._runs_on(kind, chosen),
            device=getattr(chosen.engine, "device", None),
            healthy=why_not is None,
            why_not=why_not,
            failures=failures,
            failed_s_ago=None if failed_s is None else round(time.monotonic() - failed_s, 1),
        )

    def _runs_on(self, kind: Kind, chosen: Chosen) -> str:
        if self.supervisor.runs(kind, chosen.name):
            return "service process"
        url = getattr(chosen.engine, "url", None)
        return "this process" if url is None else _origin(url)

    async def _why_not(self, kind: Kind, chosen: Chosen) -> str | None:
        down = self.supervisor.why_down(kind, chosen.name)
        return down if down is not None or not hasattr(chosen.engine, "ready") else await chosen.engine.ready()


def _session(call: Call, now_s: float) -> SessionStatus:
    counts = call.transport.counts()
    packets = {name: counts.get(f"microphone_{name}", 0) for name in PACKETS}
    return SessionStatus(
        id=call.label,
        way=call.way,
        agent=call.session.agent.name,
        state=call.session.state,
        length_s=round(now_s - call.since_s, 1),
        turns=call.session.turns,
        packets=packets if call.way == "webrtc" else None,
        response_ms=call.session.response_ms,
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _origin(url: str) -> str:
    """Return a URL without what may be a secret in it: user, path and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
