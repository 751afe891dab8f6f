"""Many speeches at once on one WebSocket, each a context of its own.

The connection is opened when first needed and kept for the next context. When it is lost, all who wait on it are told
why, and whoever comes next opens another.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from pipeline.errors import EngineError
from pipeline.tasks import cancel_and_wait

EVENTS_AHEAD = 4096
"""How many messages of one context may wait for whoever listens to it: far more than a piece of text has."""

LEAVE_S = 1.0
"""How long the last message of a context may take to leave."""

LAST = ("done", "error")
"""The types of message that end a context."""

CANCEL = {"cancel": True}


class Connection(Protocol):
    """A WebSocket of JSON messages."""

    async def send(self, event: Any, /) -> None:
        """Send one message."""
        ...

    async def recv(self) -> Any:
        """Return the next message: an object with ``type`` and, where it belongs to one, ``context_id``."""
        ...

    async def close(self) -> None:
        """Close it, in bounded time."""
        ...


Connect = Callable[[], Awaitable[Connection]]


class Contexts:
    """``connect`` opens a connection; whatever it raises is raised to all who wait for it."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._links: list[_Link] = []  # at most one is not lost; others are still being closed

    async def aclose(self) -> None:
        """Close the connection, if there is one. Idempotent."""
        links, self._links = self._links, []
        for link in links:
            await link.aclose()

    def prepare(self) -> None:
        """Begin to connect where there is no connection, before there is anything to say."""
        self._live()

    def open(self) -> Context:
        """Return a new context. Leave it."""
        return Context(self._live())

    def _live(self) -> _Link:
        self._links = [link for link in self._links if not link.closed]
        if all(link.lost for link in self._links):
            self._links.append(_Link(self._connect))
        return self._links[-1]


class Context:
    """What is said under one id, and the messages that answer it, up to one of type ``done`` or ``error``.

    ``begun``: the other side knows it. ``awaited``: it has an input whose answer is not complete; whoever takes the
    answers says when it is. ``ended``: its last message is here.
    """

    def __init__(self, link: _Link) -> None:
        self.id = secrets.token_hex(8)
        self.awaited = False
        self.begun = False
        self.ended = False
        self._heard_s = 0.0
        self._link = link
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        link.enter(self)

    @property
    def quiet_s(self) -> float:
        """How long ago its last message came, whoever has taken it since."""
        return asyncio.get_running_loop().time() - self._heard_s

    async def send(self, request: Any) -> None:
        """Send it as soon as the connection is open. Raises what prevents that."""
        await self._link.send({**request, "context_id": self.id}, self)

    async def receive(self) -> Any:
        """Return the next message. Raises whatever ended the connection."""
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def take(self, event: Any) -> None:
        """Keep a message, or an exception, for whoever receives. Called by the connection."""
        if self._events.qsize() >= EVENTS_AHEAD:
            event = EngineError(f"nobody took the last {EVENTS_AHEAD} messages of a context")
        self.ended = isinstance(event, Exception) or event.type in LAST
        self._heard_s = asyncio.get_running_loop().time()
        self._events.put_nowait(event)

    async def leave(self, parting: Any = None) -> None:
        """Forget it; tell the other side ``parting`` if it has not ended. Takes a second at most. Idempotent."""
        if self._link.forget(self) and self.begun and parting is not None:
            with suppress(Exception):  # a connection that is lost by now has ended it as well
                async with asyncio.timeout(LEAVE_S):
                    await self.send(parting)


class _Link:
    """One connection, from its opening to its end, and the task that reads it."""

    def __init__(self, connect: Connect) -> None:
        self._connection: Connection | None = None
        self._settled = asyncio.Event()  # it is open, or never will be
        self._failure: Exception | None = None
        self._contexts: dict[str, Context] = {}
        self._reading = asyncio.create_task(self._run(connect), name="read contexts")

    @property
    def lost(self) -> bool:
        """Tell whether it is of no more use."""
        return self._failure is not None

    @property
    def closed(self) -> bool:
        """Tell whether nothing of it is left."""
        return self._reading.done()

    async def aclose(self) -> None:
        """Close it; who still waits is told."""
        if self.lost:
            await asyncio.wait([self._reading])  # it is closing
        else:
            await cancel_and_wait(self._reading)
            self._end(EngineError("the engine was closed"))

    def enter(self, context: Context) -> None:
        """Give the context its messages from now on, or an exception instead of them."""
        if self._failure is None:
            self._contexts[context.id] = context
        else:
            context.take(self._failure)

    def forget(self, context: Context) -> bool:
        """Give it nothing more; tell whether it could have got more."""
        return self._contexts.pop(context.id, None) is not None

    async def send(self, request: Any, context: Context) -> None:
        """Send it as soon as the connection is open. Raises what prevents that."""
        await self._settled.wait()
        if self._connection is None:
            assert self._failure is not None
            raise self._failure
        context.begun = context.awaited = True
        try:
            await self._connection.send(request)
        except Exception as error:
            if not self.lost:  # whoever comes next must not wait for the reader to notice
                self._end(error)
                self._reading.cancel()
            raise

    async def _run(self, connect: Connect) -> None:
        try:
            self._connection = await connect()
            self._settled.set()
            while True:
                self._deliver(await self._connection.recv())
        except Exception as error:
            self._end(error)
        finally:
            if self._connection is not None:
                await self._connection.close()

    def _deliver(self, event: Any) -> None:
        context_id = event.context_id
        if context_id is None and event.type == "error":
            awaited = [context.id for context in self._contexts.values() if context.awaited]
            context_id = awaited[0] if len(awaited) == 1 else None  # it names nobody, and can only mean that one
        context = self._contexts.get(context_id)
        if context is None:
            return  # what was under way when the context was canceled
        context.take(event)
        if context.ended:
            del self._contexts[context_id]

    def _end(self, failure: Exception) -> None:
        self._failure = failure
        self._settled.set()
        for context in self._contexts.values():
            context.take(failure)
        self._contexts.clear()
