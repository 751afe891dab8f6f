"""A server that speaks OpenAI's HTTP API: one pool of kept connections, and answers read under time limits.

A request belongs to whoever iterates over its answer: closing the iterator closes the connection there and then, which
is how the server is told to stop. Only an answer that was read to its end leaves its connection in the pool.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from .endpoint import Endpoint
from .errors import EngineError
from .remote_answer import Answer, Pace
from .remote_errors import Dropped, failure
from .tasks import closing
from .threads import EngineThreads, run_in_thread

log = logging.getLogger(__name__)

T = TypeVar("T")

OURS = "vocal-node"
"""Who owns the models of our own services, as ``/models`` has it."""
OUR_MODEL = "default"
"""No engine's name: whichever the service has."""
NO_LIST = (404, 405, 501)
"""What a server answers that does not list its models."""

CONNECTIONS = 2048
KEEP_ALIVE_S = 60.0
READY_S = 2.0
READY_KEPT_S = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """What a server says of itself: whether it is a service of ours, its models, and if one of them hears pauses."""

    ours: bool = False
    models: tuple[str, ...] = ()
    hears_pauses: bool = False


class Remote:
    """One server. Connections are made in the loop that asks; ``aclose`` them there, then ``close`` the threads."""

    def __init__(self, server: Endpoint) -> None:
        self.server = server
        self._pool: tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession] | None = None
        self._dns = EngineThreads(f"{server.kind} dns")
        self._known = Known()
        self._fresh = False
        self._ready: tuple[float, str | None] | None = None

    async def aclose(self) -> None:
        """Close the connections of this loop. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None and pool[0] is asyncio.get_running_loop():
            await pool[1].close()

    def close(self) -> None:
        """Join the thread that looks host names up. Idempotent."""
        self._dns.close()

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._pool[0] is not loop:
            self._pool = (loop, self._open_session())
        return self._pool[1]

    def _open_session(self) -> aiohttp.ClientSession:
        headers = {"User-Agent": OURS, "Accept-Encoding": "identity"}  # packers hold a stream's first bytes back
        if self.server.key is not None:
            headers["Authorization"] = f"Bearer {self.server.key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=Resolver(self._dns), limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=self.server.connect_s),
        )

    @asynccontextmanager
    async def request(self, path: str, pace: Pace, private: Sequence[str] = (), **what: Any) -> AsyncIterator[Answer]:
        """Post ``what`` (see aiohttp) and wait for the headers of a successful answer; leaving ends the request.

        Raises Dropped where the connection fails, also from within, and EngineError for everything else.
        """
        async with self._open("POST", path, pace, private, **what) as answer:
            if not answer.ok:
                raise await answer.refusal()
            if answer.content_type == "text/html":
                raise EngineError(f"{self.server} answered with a web page: check {self.server.variable('URL')}")
            yield answer

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, pace: Pace, private: Sequence[str] = (), **what: Any
    ) -> AsyncIterator[Answer]:
        asking = self._session().request(method, f"{self.server.url}/{path}", allow_redirects=False, **what)
        try:
            response = await pace.within(asking)
            try:
                log.debug("%s %s/%s: %d", method, self.server.url, path, response.status)
                yield Answer(self.server, response, pace, (*private, self.server.key or ""))
            finally:
                await _leave(response)
        except EngineError:
            self._fresh = False
            raise
        except aiohttp.ClientError as error:
            self._fresh = False
            raise failure(self.server, error) from error

    @property
    def maybe_ours(self) -> bool:
        """Tell whether it may be a service of ours: it is, or was not asked since a request failed."""
        return self._known.ours or not self._fresh

    @property
    def hears_pauses(self) -> bool:
        """Tell whether it is a service of ours whose speech-to-text hears pauses, as far as it said."""
        return self._known.hears_pauses

    async def known(self) -> Known:
        """Return what the server says of itself; asked once, and again after a request failed.

        What it said stands until it says something else: a request that failed may be one caller's misfortune.
        """
        if not self._fresh:
            try:
                await self._ask(self.server.first_s)  # a service that restarts answers when it is there
            except Dropped:
                raise
            except EngineError:
                if self.server.model is None:
                    raise  # else it may do without this route; the request itself will tell
        return self._known

    async def _ask(self, within_s: float) -> None:
        pace = Pace(replace(self.server, first_s=within_s))
        pace.start()
        async with self._open("GET", "models", pace) as answer:
            listed = answer.response.status not in NO_LIST
            if listed and not answer.ok:
                raise await answer.refusal()
            self._known = _known(await pace.within(answer.body())) if listed else Known()
        self._fresh = True

    async def model(self) -> str:
        """Return the model to ask for. Raises EngineError where none is named and none is listed."""
        if self.server.model is not None:
            return self.server.model
        known = await self.known()
        if known.ours:
            return OUR_MODEL
        if not known.models:
            raise EngineError(f"{self.server} lists no models: name one in {self.server.variable('MODEL')}")
        return known.models[0]

    async def ready(self) -> str | None:
        """Return None if the server answers, else why not: within 2 s, and asked at most once a second."""
        now_s = asyncio.get_running_loop().time()
        if self._ready is None or now_s >= self._ready[0] + READY_KEPT_S:
            self._ready = (now_s, await self._why_not_ready())
        return self._ready[1]

    async def _why_not_ready(self) -> str | None:
        try:
            await self._ask(READY_S)
        except EngineError as error:
            return str(error)
        return None


async def ask_twice(ask: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
    """Yield what ``ask`` yields; ask once more if the connection fails before the first item."""
    given = False
    for last in (False, True):
        try:
            async with closing(ask()) as items:
                async for item in items:
                    given = True
                    yield item
            return
        except Dropped as error:
            if given or last:
                raise
            pause_s = error.pause_s
        await asyncio.sleep(pause_s)


async def _leave(response: aiohttp.ClientResponse) -> None:
    """Cut the connection, unless the answer was read to its end: then it is in the pool again."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()
    with suppress(aiohttp.ClientError, OSError):
        await response.wait_for_close()  # for the task that still wrote the request, canceled by now


def _known(body: bytes) -> Known:
    """Read the list of models: ``{"data": [{"id", "owned_by"}]}``. What is no such list says nothing."""
    try:
        listed = json.loads(body)["data"]
        models = [(str(model["id"]), model.get("owned_by")) for model in listed]
        pauses = any(model.get("hears_pauses") is True for model in listed)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Known()
    ours = any(owner == OURS for _, owner in models)
    return Known(ours, tuple(name for name, _ in models), ours and pauses)


class Resolver(AbstractResolver):
    """Look host names up as the system does, on a thread of its own: aiohttp would use the loop's default executor."""

    def __init__(self, threads: EngineThreads) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return its addresses. Raises OSError where it has none."""
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await run_in_thread(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=family, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for family, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing: the thread is the engine's."""
