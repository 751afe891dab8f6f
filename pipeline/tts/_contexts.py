"""Many generations at once on one WebSocket, each a context of its own.

The connection is opened when first needed and kept for the next context. When it is lost, all who wait on it are told
why, and whoever comes next opens another. Leaving a context that has not ended cancels it at the vendor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from pipeline.errors import EngineError
from pipeline.tasks import cancel_and_wait

EVENTS_AHEAD = 4096
"""How many messages of one context may wait for whoever listens to it: far more than a piece of text has."""

LAST = ("done", "error")
"""The types of message that end a context."""


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

    async def generate(self, context_id: str, request: Any) -> AsyncIterator[Any]:
        """Send ``request`` and yield the messages of its context, up to one of type ``done`` or ``error``.

        Raises whatever ended the connection.
        """
        link = self._live()
        events = link.enter(context_id)
        try:
            await link.send(request)
            ended = False
            while not ended:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                ended = event.type in LAST
                yield event
        finally:
            await link.leave(context_id)

    def _live(self) -> _Link:
        self._links = [link for link in self._links if not link.closed]
        if all(link.lost for link in self._links):
            self._links.append(_Link(self._connect))
        return self._links[-1]


class _Link:
    """One connection, from its opening to its end, and the task that reads it."""

    def __init__(self, connect: Connect) -> None:
        self._connection: Connection | None = None
        self._settled = asyncio.Event()  # it is open, or never will be
        self._failure: Exception | None = None
        self._contexts: dict[str, asyncio.Queue[Any]] = {}
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

    def enter(self, context_id: str) -> asyncio.Queue[Any]:
        """Return where the messages of this context will arrive, or an exception instead of them."""
        events = self._contexts[context_id] = asyncio.Queue()
        return events

    async def leave(self, context_id: str) -> None:
        """Forget the context; cancel it if it has not ended."""
        if self._contexts.pop(context_id, None) is not None and self._connection is not None:
            with suppress(Exception):  # a connection that is lost by now has canceled it as well
                await self._connection.send({"cancel": True, "context_id": context_id})

    async def send(self, request: Any) -> None:
        """Send it as soon as the connection is open. Raises what prevents that."""
        await self._settled.wait()
        if self._connection is None:
            assert self._failure is not None
            raise self._failure
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
        if context_id is None and event.type == "error" and len(self._contexts) == 1:
            (context_id,) = self._contexts  # it names nobody, and can only mean the one there is
        events = self._contexts.get(context_id)
        if events is None:
            return  # what was under way when the context was canceled
        if events.qsize() >= EVENTS_AHEAD:
            event = EngineError(f"nobody took the last {EVENTS_AHEAD} messages of a context")
        if isinstance(event, Exception) or event.type in LAST:
            del self._contexts[context_id]
        events.put_nowait(event)

    def _end(self, failure: Exception) -> None:
        self._failure = failure
        self._settled.set()
        for events in self._contexts.values():
            events.put_nowait(failure)
        self._contexts.clear()
