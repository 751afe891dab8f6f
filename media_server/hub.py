"""The sessions of this process: who is let in, who is there, and how all of them end, whichever way they came.

Sessions are isolated: each lives in a task of its own transport, and what one raises is logged there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Self

from compat_ws.backend import Transport
from pipeline.errors import Overloaded, ProtocolError
from pipeline.session import Session

from .loop_lag import LoopLag

log = logging.getLogger(__name__)

LABEL_CHARS = 6


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions, and how late the loop may be for another one."""

    max_sessions: int = 64
    max_lag_ms: float = 100.0


@dataclass(frozen=True, slots=True)
class HubListener:
    """What the outside may count: all synchronous. Reasons of ``refused`` are draining, full, lag, offer, agent."""

    opened: Callable[[Call], None] = lambda _: None
    closed: Callable[[Call, str], None] = lambda *_: None
    refused: Callable[[str], None] = lambda _: None
    lag_ms: Callable[[float], None] = lambda _: None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call in progress, by the monotonic clock. A listener shares the session of the call it listens to."""

    id: str
    transport: Transport
    session: Session
    listens_to: str | None = None
    way: Literal["webrtc", "websocket"] = "webrtc"
    since_s: float = field(default_factory=time.monotonic)

    @property
    def label(self) -> str:
        """What the log calls it: not the whole id, with which anybody could hang up."""
        return self.id[:LABEL_CHARS]


class Hub:
    """Use as ``async with``: on the way out every call has ended."""

    def __init__(self, limits: Limits | None = None, listener: HubListener | None = None) -> None:
        self.draining = False
        self.calls: dict[str, Call] = {}
        self.listener = listener or HubListener()
        self._limits = limits or Limits()
        self._lag = LoopLag(self.listener.lag_ms)
        self._places = 0
        self._emptied = asyncio.Event()
        self._ending = False

    async def __aenter__(self) -> Self:
        self._lag.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.draining = self._ending = True
        self._lag.stop()
        await self.close_all("server closed")

    # --- letting in

    @property
    def sessions(self) -> int:
        """Sessions that run or are being set up."""
        return self._places

    @property
    def max_sessions(self) -> int:
        """How many there may be."""
        return self._limits.max_sessions

    def why_not(self) -> str | None:
        """Return why no further session is let in (draining, full, lag), None if one is."""
        if self.draining:
            return "draining"
        if self._places >= self._limits.max_sessions:
            return "full"
        return "lag" if self._lag.ms > self._limits.max_lag_ms else None

    @contextmanager
    def place(self, *, replaces: bool = False) -> Iterator[None]:
        """Hold one of the places. Raises Overloaded; one that ``replaces`` another is let in where all are taken."""
        self._admit(replaces)
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    def _admit(self, replaces: bool) -> None:
        reason = self.why_not()
        if reason is None or (replaces and reason == "full"):
            return
        self.listener.refused(reason)
        match reason:
            case "draining":
                words = "this server is about to end" if self._ending else "this server lets nobody in for now"
                raise Overloaded(f"{words}; call again in a moment", retry_after_s=30)
            case "full":
                raise Overloaded(f"all {self._limits.max_sessions} places are taken; call again later", retry_after_s=5)
            case _:
                raise Overloaded("this server is too busy for another call; call again later", retry_after_s=2)

    # --- those that are there

    def opened(self, call: Call) -> None:
        """Know a call from now on."""
        self.calls[call.id] = call
        self._emptied.clear()
        log.info("call %s opened%s", call.label, " to listen" if call.listens_to is not None else "")
        self.listener.opened(call)

    def closed(self, call: Call, reason: str) -> None:
        """Forget a call that has ended; whoever listened to it ends, too."""
        del self.calls[call.id]
        log.info("call %s closed: %s", call.label, reason)
        for other in self.calls.values():
            if other.listens_to == call.id:
                other.transport.end("session closed")
        if not self.calls:
            self._emptied.set()
        self.listener.closed(call, reason)

    # --- the end

    def set_draining(self, draining: bool) -> None:
        """Let nobody in any more, or again; calls that run go on. Raises ProtocolError (409) once it is ending."""
        if self._ending and not draining:
            raise ProtocolError("this server is about to end, which nothing undoes", param="draining", status=409)
        if draining != self.draining:
            log.info("draining by hand: no new sessions" if draining else "draining is over: sessions are let in again")
        self.draining = draining

    async def drain(self, timeout_s: float) -> None:
        """Let nobody in any more, and wait until the last call has ended, at most ``timeout_s``."""
        self.draining = self._ending = True
        if self.calls:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()
            except TimeoutError:
                log.info("%d calls still run after %g s", len(self.calls), timeout_s)

    async def close_all(self, reason: str) -> None:
        """End every call; returns when nothing of them is left."""
        transports = [call.transport for call in self.calls.values()]
        await asyncio.gather(*(transport.close(reason) for transport in transports), return_exceptions=True)
