"""What the WebSocket and HTTP APIs ask of the media server, which implements it. They never see WebRTC.

The composition root sets the application's keys before the first request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiohttp import web

from pipeline.catalogue import Catalogue
from pipeline.engines import Chosen, Kind
from pipeline.playout import Playout
from pipeline.session import Session

Outcome = Literal["finished", "abandoned", "failed"]
"""How a request to an engine ended: it gave all, its client left, or the engine raised."""


class Transport(Protocol):
    """A session's connection, as far as the server that let it in is concerned."""

    @property
    def reason(self) -> str:
        """Why it ends or ended, one of few: "hung up", "caller left", "vanished", "failed" where nobody said..."""
        ...

    def end(self, reason: str) -> None:
        """Begin to close, for this reason if it is the first one. Synchronous, idempotent."""
        ...

    async def close(self, reason: str) -> None:
        """Close, and return when nothing is left of it."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Return its counters by name, as ``media_server.metrics.CALL_COUNTERS`` has them."""
        ...

    def watch_lateness(self, observe: Callable[[float], None]) -> None:
        """Call ``observe`` with how late each outgoing frame leaves, in ms."""
        ...


class Sessions(Protocol):
    """Let a session in, make it, count it."""

    def place(self) -> AbstractContextManager[None]:
        """Hold one of the server's places while a client is being set up and served. Raises Overloaded."""
        ...

    def open(
        self, request: Mapping[str, Any], playout: Playout, transport: Transport, remote: str
    ) -> AbstractAsyncContextManager[Session]:
        """Find the agent that ``request`` asks for and enter a session with it, inside a ``place``.

        ``request`` has the fields of the raw-PCM configuration (see `Catalogue.find`); ``remote`` is the client's
        address. Raises ProtocolError for what is wrong in it and EngineUnavailable for an engine that cannot be used
        here. On the way out the session has ended and is counted under ``transport.reason``.
        """
        ...


class EngineSource(Protocol):
    """The engines of this process."""

    async def get(self, kind: Kind, name: str | None = None) -> Chosen:
        """Return the engine ``name``, created when it is first asked for; None is the server's own choice.

        Only engines that ship with Vocal Node, or that its operator configured, are created for a client. Raises
        ProtocolError (param ``kind``) for a name that is none of these, EngineUnavailable for one that lacks something.
        """
        ...

    def served(self) -> Mapping[Kind, Chosen]:
        """Return the server's own choice of each kind that this process serves."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceListener:
    """What the outside may count of requests to engines: all synchronous."""

    begun: Callable[[Kind], None] = lambda kind: None
    produced: Callable[[Kind], None] = lambda kind: None
    """The engine gave one more item: a transcript, a delta, a piece of audio."""
    ended: Callable[[Kind, Outcome], None] = lambda kind, outcome: None


SESSIONS: web.AppKey[Sessions] = web.AppKey("sessions", Sessions)
ENGINES: web.AppKey[EngineSource] = web.AppKey("engines", EngineSource)
CATALOGUE: web.AppKey[Catalogue] = web.AppKey("catalogue", Catalogue)
LISTENER: web.AppKey[ServiceListener] = web.AppKey("service_listener", ServiceListener)
