"""A server that speaks OpenAI's API, on loopback: what it answers is the test's, what it was asked it remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from pipeline.tasks import cancel_and_wait

OURS = {"object": "list", "data": [{"id": "anything", "object": "model", "owned_by": "vocal-node"}]}
OTHERS = {"object": "list", "data": [{"id": "first", "owned_by": "someone"}, {"id": "second"}]}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiServer:
    """``answer`` takes every POST, ``models`` every GET; ``peers`` are the connections that requests came over."""

    def __init__(self, answer: Answer, models: Answer | Mapping[str, Any]) -> None:
        self.answer = answer
        self.models = models
        self.url = ""
        self.requests: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.peers: list[int] = []
        self.gone = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; ``gone`` is set where its client left."""
        assert request.transport is not None
        self.requests.append(f"{request.method} {request.path_qs}")
        self.headers.append(request.headers)
        self.peers.append(request.transport.get_extra_info("peername")[1])
        try:
            if request.method == "GET":
                return await self.models(request) if callable(self.models) else web.json_response(self.models)
            return await self.answer(request)
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise

    @property
    def posts(self) -> int:
        """How many requests there were but for the models."""
        return len([request for request in self.requests if request.startswith("POST")])


@asynccontextmanager
async def api_server(
    answer: Answer, models: Answer | Mapping[str, Any] = OTHERS, port: int = 0
) -> AsyncIterator[ApiServer]:
    """Serve on a free port, or this one; a client that leaves cancels what answers it."""
    server = ApiServer(answer, models)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def replies(body: bytes | str | Mapping[str, Any], status: int = 200, **headers: str) -> Answer:
    """Answer each request with this; ``content_type=`` and the like are headers."""
    text = json.dumps(body) if isinstance(body, Mapping) else body
    content = text.encode() if isinstance(text, str) else text
    default = "application/json" if isinstance(body, Mapping) else "text/event-stream"
    named = {"Content-Type": default} | {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(body=content, status=status, headers=named)

    return answer


async def never(request: web.Request) -> web.StreamResponse:
    """Take a request and say nothing."""
    await request.read()
    return await asyncio.Event().wait()  # type: ignore[return-value]


def streams(*pieces: bytes, content_type: str = "text/event-stream", ends: bool = True) -> Answer:
    """Answer each request with these pieces, each sent by itself; then end, or say nothing more."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.001)
        if not ends:
            await asyncio.Event().wait()
        await response.write_eof()
        return response

    return answer


def event(content: object) -> bytes:
    """Return a server-sent event."""
    return f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()


def delta(text: object, finish: str | None = None) -> bytes:
    """Return an event with a piece of a chat's answer."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


NO_MODELS = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def wire_server(talk: Callable[[int, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve bytes: ``talk`` is called for each POST, with its number from 0 on, and writes what it likes."""
    count = 0
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        serving.add(asyncio.current_task())
        try:
            while (method := await _skip_request(reader)) and not writer.is_closing():
                if method == "get":
                    writer.write(NO_MODELS)
                else:
                    number, count = count, count + 1
                    await talk(number, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await cancel_and_wait(*(task for task in serving if task is not None))
        await server.wait_closed()


async def _skip_request(reader: asyncio.StreamReader) -> str:
    """Read a request with a length and return its method; empty at the end of the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next((line.split(":")[1] for line in head.splitlines() if line.startswith("content-length:")), "0")
        await reader.readexactly(int(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""
    return head.partition(" ")[0]
