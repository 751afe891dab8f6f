"""HTTP connections to a vendor: a pool that survives canceled requests, and has a connection when one is needed.

httpcore (1.0.9) forgets what a request was canceled at before it was sent: a connection that was just made stays in the
pool, neither idle nor closed, for ever. Callers interrupt, so the pool would be full of them one day, and no request
would get a connection any more. Here a request that is canceled too early goes on until it is sent, and ends there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import httpx

from .tasks import cancel_and_wait

log = logging.getLogger(__name__)

SENT = "http11.send_request_headers.started"
"""From here on httpcore cleans up after a canceled request. https://www.encode.io/httpcore/extensions/#trace"""


class PatientTransport(httpx.AsyncBaseTransport):
    """Another transport, which sees no request canceled before it is sent. Canceling returns at once all the same."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._leaving: dict[asyncio.Task[None], asyncio.Task[httpx.Response]] = {}

    @property
    def idle(self) -> bool:
        """Whether a connection waits for a request."""
        pool = getattr(self._transport, "_pool", None)
        return any(one.is_idle() and not one.has_expired() for one in pool.connections) if pool is not None else False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Do what httpx asks for."""
        sent = asyncio.Event()
        theirs = request.extensions.get("trace")

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event == SENT:
                sent.set()
            if theirs is not None:
                await theirs(event, info)

        request.extensions = {**request.extensions, "trace": trace}
        asking = asyncio.create_task(self._transport.handle_async_request(request), name="ask a vendor")
        asking.add_done_callback(lambda _: sent.set())
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            leaving = asyncio.create_task(_leave(asking, sent), name="leave a vendor")
            self._leaving[leaving] = asking
            leaving.add_done_callback(self._leaving.pop)
            raise

    async def aclose(self) -> None:
        """Close the connections, those too that are just being made."""
        leaving = dict(self._leaving)
        for asking in leaving.values():
            asking.cancel()
        if leaving:
            await asyncio.wait(leaving)
        await self._transport.aclose()


async def _leave(asking: asyncio.Task[httpx.Response], sent: asyncio.Event) -> None:
    """End a request as soon as it is sent."""
    await sent.wait()
    asking.cancel()
    await asyncio.wait({asking})
    if not asking.cancelled() and asking.exception() is None:
        await asking.result().aclose()


class WarmPool:
    """The connections to one vendor, of which one can be made before there is anything to ask.

    A request that was cut off takes its connection along: without this, whoever interrupts would wait in the next
    reply for TCP and TLS, which are two or three round trips.
    """

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        """Own ``client``, whose transports are patient ones."""
        self.client = client
        self._url = httpx.URL(url)
        self._connecting: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Connect, unless a connection waits or is being made. Does not block, raises nothing; sends no key."""
        if not (self.client.is_closed or self._is_connecting() or self._transport().idle):
            self._connecting = asyncio.create_task(self._connect(), name="connect to a vendor")

    async def aclose(self) -> None:
        """Close all of them. Idempotent."""
        if self._connecting is not None and self._is_connecting():
            await cancel_and_wait(self._connecting)
        await self.client.aclose()

    def _is_connecting(self) -> bool:
        connecting = self._connecting
        # a loop that ended took its tasks along
        return connecting is not None and not connecting.done() and connecting.get_loop() is asyncio.get_running_loop()

    def _transport(self) -> PatientTransport:
        transport = self.client._transport_for_url(self._url)
        assert isinstance(transport, PatientTransport)
        return transport

    async def _connect(self) -> None:
        try:
            await self.client.head(self._url)  # whatever is answered, the connection is there
        except httpx.HTTPError as error:
            log.debug("%s cannot be connected to ahead of time: %s", self._url.host, type(error).__name__)
