"""HTTP connections whose pool survives canceled requests.

httpcore (1.0.9) forgets what a request was canceled at before it was sent: a connection that was just made stays in the
pool, neither idle nor closed, for ever. Callers interrupt, so the pool would be full of them one day, and no request
would get a connection any more. Here a request that is canceled too early goes on until it is sent, and ends there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

SENT = "http11.send_request_headers.started"
"""From here on httpcore cleans up after a canceled request. https://www.encode.io/httpcore/extensions/#trace"""


class PatientTransport(httpx.AsyncBaseTransport):
    """Another transport, which sees no request canceled before it is sent. Canceling returns at once all the same."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._leaving: dict[asyncio.Task[None], asyncio.Task[httpx.Response]] = {}

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
