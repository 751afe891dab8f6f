"""Responses that are sent while they are being made. What fails before the first byte keeps its true status; what
fails later is cut off, so that nobody takes the part for the whole.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import hdrs, web

from pipeline.errors import VocalError
from signaling.errors import error_body, status_of

STALLED_S = 30.0
"""How long a client may take nothing: its engine is not held for longer."""

EVENTS_TYPE = "text/event-stream"


class Streamed:
    """A response whose length is not known; it begins with the first bytes written."""

    def __init__(self, request: web.Request, content_type: str) -> None:
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
        self.response = web.StreamResponse(headers=headers)
        self._request = request

    @property
    def begun(self) -> bool:
        """Whether the status has been sent."""
        return self.response.prepared

    async def write(self, octets: bytes) -> None:
        """Send. Raises ConnectionError, the connection being gone, where the client takes nothing for too long."""
        async with self._within_limit():
            await self._begin()
            await self.response.write(octets)

    async def end(self) -> web.StreamResponse:
        """Complete the response. Raises ConnectionError like ``write``."""
        async with self._within_limit():
            await self._begin()
            await self.response.write_eof()
        return self.response

    async def _begin(self) -> None:
        if not self.begun:
            await self.response.prepare(self._request)

    @asynccontextmanager
    async def _within_limit(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(STALLED_S):
                yield
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError(f"the client took nothing for {STALLED_S:g} s") from None


class Events:
    """Server-sent events (WHATWG HTML section 9.2), each a JSON object or a bare word."""

    def __init__(self, streamed: Streamed) -> None:
        self._streamed = streamed

    async def send(self, event: Mapping[str, Any] | str) -> None:
        """Send one."""
        text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        await self._streamed.write(f"data: {text}\n\n".encode())

    async def end(self) -> web.StreamResponse:
        """Complete the response."""
        return await self._streamed.end()


def wants_events(request: web.Request) -> bool:
    """Tell whether a client asks for server-sent events."""
    return EVENTS_TYPE in request.headers.get(hdrs.ACCEPT, "").lower()


@asynccontextmanager
async def sending_events(request: web.Request) -> AsyncIterator[Events]:
    """Send events. An error after the first one is the last, ``{"error": ...}``, and the response is cut off there."""
    streamed = Streamed(request, EVENTS_TYPE)
    events = Events(streamed)
    try:
        yield events
    except VocalError as error:
        if streamed.begun:
            await events.send(error_body(status_of(error), str(error), getattr(error, "param", None)))
        raise
