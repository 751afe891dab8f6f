"""An answer of a server that speaks OpenAI's HTTP API, read piece by piece under time limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from .endpoint import Endpoint
from .errors import EngineError
from .event_stream import EventStream
from .remote_errors import complaint, refusal

T = TypeVar("T")

BODY_MAX_BYTES = 1024 * 1024
DRAIN_S = 0.02
"""The end of a body may come this much later than the end of its content, or the connection is given up."""


class Pace:
    """When the next item of an answer is due. Nothing is before ``start``."""

    def __init__(self, server: Endpoint) -> None:
        self._server = server
        self._allowed_s = server.first_s
        self._due_s: float | None = None
        self._given = False
        self._error: Exception | None = None
        self._limit: asyncio.Timeout | None = None

    def start(self) -> None:
        """Expect the first item from now on, also in a wait that has begun."""
        self._given = False
        self._due_at(asyncio.get_running_loop().time() + self._allowed_s)

    def give_up(self, error: Exception) -> None:
        """Raise ``error`` from a wait that has begun, or else from the next one."""
        self._error = error
        self._due_at(asyncio.get_running_loop().time())

    def _due_at(self, due_s: float) -> None:
        self._due_s = due_s
        if self._limit is not None:
            self._limit.reschedule(due_s)

    async def within(self, step: Awaitable[T]) -> T:
        """Wait for a step towards the next item. Raises EngineError where that is late."""
        if self._given and self._due_s is not None:
            self._given, self._allowed_s = False, self._server.next_s
            self._due_s = asyncio.get_running_loop().time() + self._allowed_s
        limit = self._limit = asyncio.timeout_at(self._due_s)
        try:
            async with limit:
                result = await step
        except TimeoutError as error:
            if not limit.expired():
                raise
            late = EngineError(f"{self._server} gave nothing for {self._allowed_s:g} s; try again later")
            raise (self._error or late) from error
        finally:
            self._limit = None
        if self._error is not None:
            raise self._error
        return result

    async def next(self, items: AsyncIterator[T]) -> T | None:
        """Return the next item, None at the end. Raises EngineError where it is late."""
        item = await self.within(anext(items, None))
        self._given = True
        return item


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request, from its headers on. ``private`` is what errors never repeat."""

    server: Endpoint
    response: aiohttp.ClientResponse
    pace: Pace
    private: Sequence[str] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Tell whether it has what was asked for: neither an error nor a redirect."""
        return 200 <= self.response.status < 300

    @property
    def content_type(self) -> str:
        """Return the media type, in lower case and without parameters."""
        return self.response.content_type.lower()

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        return self.response.content.iter_any()

    async def events(self) -> AsyncIterator[str]:
        """Yield the data of server-sent events."""
        stream = EventStream()
        async for chunk in self.chunks():
            for event in stream.push(chunk):
                yield event
        for event in stream.end():
            yield event

    async def body(self) -> bytes:
        """Read all of it. Raises EngineError where it is longer than a JSON answer may be."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > BODY_MAX_BYTES:
                raise EngineError(f"{self.server} answered with more than {BODY_MAX_BYTES} bytes")
        return bytes(body)

    def parse(self, text: str | bytes) -> Mapping[str, Any]:
        """Read a JSON object. Raises EngineError for anything else, and for an error in its place."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, Mapping):
            raise EngineError(f"{self.server} sent something else than a JSON object")
        if found.get("error") or found.get("object") == "error":
            raise EngineError(f"{self.server} failed: {complaint(found, self.private) or 'it does not say why'}")
        return found

    def text(self, value: object) -> str:
        """Return ``value`` if it is text, without halves of surrogate pairs: nothing could encode them."""
        if not isinstance(value, str):
            raise EngineError(f"{self.server} sent no text where there should be some")
        return value.encode(errors="replace").decode()

    async def drain(self) -> None:
        """Read on to the end of the body, which is due: else the connection could not be used again."""
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(DRAIN_S):
                async for _ in self.chunks():
                    continue

    async def refusal(self) -> EngineError:
        """Return the error that an answer other than 2xx means."""
        with suppress(EngineError, aiohttp.ClientError):
            return refusal(self.server, self.response, await self.pace.within(self.body()), self.private)
        return refusal(self.server, self.response, b"", self.private)
