"""Local servers that speak the wire protocols of Groq, ElevenLabs and Cartesia, to their real SDKs."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from pipeline.audio import Pcm
from pipeline.engines import Kind, load
from pipeline.threads import EngineThreads, run_in_thread

from .canary import KEY as KEY

RATE_HZ = 24_000
CHARACTER_S = 0.06


@dataclass(frozen=True)
class Asked:
    """One request as it came over the wire."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    peer: tuple[str, int]


Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handle: Script) -> AsyncIterator[str]:
    """Serve every path with ``handle``, which is canceled when its client goes; yields the base URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def created(kind: Kind, name: str, settings: Mapping[str, str]) -> Any:
    """Create an engine as the server does: in a thread, while the loop runs."""
    threads = EngineThreads("create")
    try:
        return await run_in_thread(threads, lambda: load(kind, name, settings))
    finally:
        threads.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run; tasks and threads left over and a default executor are errors."""

    async def tidy() -> None:
        before = set(threading.enumerate())
        async with asyncio.timeout(20.0):
            await main
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert set(threading.enumerate()) == before
        assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None

    asyncio.run(tidy())


async def nothing_is_ended_by_the_garbage_collector() -> None:
    """Fail where generators were left half way: the loop ends each that is collected in a task of nobody."""
    loop = asyncio.get_running_loop()
    begun: list[object] = []
    factory = loop.get_task_factory()

    def noting(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        begun.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(noting)
    gc.collect()
    for _ in range(20):
        await asyncio.sleep(0)
    loop.set_task_factory(factory)
    assert [coro for coro in begun if "athrow" in type(coro).__name__ or "asend" in type(coro).__name__] == []


@dataclass
class HttpVendor:
    """Answers each request with ``script``; remembers what was asked and whether a client left before the end.

    ``met`` are the connections that were made before there was anything to ask.
    """

    script: Script
    asked: list[Asked] = field(default_factory=list)
    met: list[tuple[str, int]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        if request.method == "HEAD":
            assert not {"authorization", "xi-api-key"} & {name.lower() for name in request.headers}
            self.met.append(tuple(peer))
            return web.Response(status=405)
        body = await request.json()
        self.asked.append(
            Asked(request.method, request.path, dict(request.query), dict(request.headers), body, tuple(peer))
        )
        try:
            return await self.script(request)
        except asyncio.CancelledError:
            self.left.set()
            raise
        except ConnectionError:
            self.left.set()
            return web.Response()


async def begin(
    request: web.Request, content_type: str, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send the headers of a streamed answer."""
    response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
    await response.prepare(request)
    return response


def refusing(status: int, body: object, headers: Mapping[str, str] | None = None) -> Script:
    """Return a script that answers with an error."""

    async def script(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return script


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Reset the connection instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def stall(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


def tone(samples: int, pitch_hz: float = 440.0) -> Pcm:
    """Return a sine."""
    wave: Pcm = (12_000 * np.sin(2 * np.pi * pitch_hz / RATE_HZ * np.arange(samples))).round().astype(np.int16)
    return wave


def spoken(text: str, speed: float) -> bytes:
    """Return a tone that lasts as long as the words would, as s16le."""
    return tone(round(len(text) * CHARACTER_S / speed * RATE_HZ)).astype("<i2").tobytes()


# --- Groq


def delta(finish: str | None = None, **content: str) -> bytes:
    """Return one chunk of a completion as an event of the stream."""
    choice = {"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def saying(*words: str, finish: str = "stop") -> Script:
    """Return a script that streams ``words`` as the model's deltas."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "text/event-stream")
        await response.write(delta(role="assistant", content=""))
        for word in words:
            await response.write(delta(content=word))
        await response.write(delta(finish) + b"data: [DONE]\n\n")
        return response

    return script


# --- ElevenLabs

KNOWN_VOICES = ("JBFqnCBsd6RMkjVDRZzb", "f786b574-daa5-4673-aa0c-cbe3e8534c02")


def eleven_error(code: str) -> dict[str, Any]:
    """Return the body of an error."""
    return {"detail": {"type": "error", "code": code, "status": code, "message": f"{KEY} said: the words", "param": ""}}


async def eleven_speaks(request: web.Request) -> web.StreamResponse:
    """Speak the text, in pieces that cut through samples."""
    if request.path.split("/")[3] not in KNOWN_VOICES:
        return web.json_response(eleven_error("voice_not_found"), status=404)
    body = await request.json()
    octets = spoken(body["text"], (body.get("voice_settings") or {}).get("speed", 1.0))
    response = await begin(request, "audio/pcm")
    for i in range(0, len(octets), 4097):
        await response.write(octets[i : i + 4097])
    return response


@dataclass
class ElevenStitches:
    """Speaks and gives each request an id; takes up to three of those that were read to their end.

    ``refuses`` are the fields that the model does not take. Without ``ids`` the requests have none.
    """

    refuses: tuple[str, ...] = ()
    ids: bool = True
    spoken: list[str] = field(default_factory=list)
    """The ids of the requests that were answered."""

    async def script(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await request.json()
        for name in self.refuses:
            if body.get(name):
                error = eleven_error("unsupported_model")
                error["detail"]["message"] = (
                    f"Providing {name} is not yet supported with the {body['model_id']!r} model."
                )
                return web.json_response(error, status=400)
        previous = body.get("previous_request_ids") or []
        if len(previous) > 3 or not set(previous) <= set(self.spoken):
            return web.json_response(eleven_error("invalid_request"), status=422)
        request_id = f"request-{len(self.spoken)}"
        response = await begin(request, "audio/pcm", {"request-id": request_id} if self.ids else {})
        await response.write(spoken(body["text"], 1.0))
        self.spoken.append(request_id)
        return response


# --- Cartesia

Speak = Callable[["CartesiaSocket", dict[str, Any]], Awaitable[None]]
FREE = ("transcript", "continue", "flush")
"""What may differ between the inputs of a context."""


@dataclass
class CartesiaVendor:
    """Speaks each transcript with ``speak``, contexts side by side; remembers what was asked and what was canceled.

    A context expires ``expires_s`` after its last output, and tells so if ``tells_expiry``.
    """

    speak: Speak
    expires_s: float = 1.0
    tells_expiry: bool = True
    asked: list[Asked] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    """The inputs with a transcript."""
    contexts: dict[str, CartesiaContext] = field(default_factory=dict)
    """Those that are open."""
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    """There are none."""
    ended: list[str] = field(default_factory=list)
    """The contexts that were told that no more comes."""
    wrong: list[BaseException] = field(default_factory=list)
    """What was asked as Cartesia does not want to be asked."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    canceled: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    closed: asyncio.Queue[int | None] = field(default_factory=asyncio.Queue)
    sockets: list[CartesiaSocket] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket."""
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        self.asked.append(
            Asked(request.method, request.path, dict(request.query), dict(request.headers), None, tuple(peer))
        )
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.sockets.append(CartesiaSocket(self, ws, request))
        self.opened.set()
        try:
            await self.sockets[-1].serve()
        finally:
            self.closed.put_nowait(ws.close_code)
        return ws


class CartesiaContext:
    """One context: its inputs are spoken in turn, and it ends when it is told, canceled or too old."""

    def __init__(self, socket: CartesiaSocket, vendor: CartesiaVendor, first: dict[str, Any]) -> None:
        self.flush_id = 1
        self.expired = self.refused = False
        self._socket = socket
        self._vendor = vendor
        self._first = first
        self._inputs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(), name="cartesia context")
        vendor.contexts[first["context_id"]] = self
        vendor.quiet.clear()

    def put(self, message: dict[str, Any]) -> None:
        """Take an input."""
        self._inputs.put_nowait(message)

    async def _run(self) -> None:
        context_id, waits_s = self._first["context_id"], None
        try:
            while True:
                try:
                    async with asyncio.timeout(waits_s):
                        message = await self._inputs.get()
                except TimeoutError:
                    self.expired = True
                    if self._vendor.tells_expiry:
                        await self._socket.done(context_id)
                    return
                await self._answer(message)
                if not message.get("continue"):
                    self._vendor.ended.append(context_id)
                    await self._socket.done(context_id)
                    return
                waits_s = self._vendor.expires_s
        finally:
            self._vendor.contexts.pop(context_id, None)
            if not self._vendor.contexts:
                self._vendor.quiet.set()

    async def _answer(self, message: dict[str, Any]) -> None:
        assert {k: v for k, v in message.items() if k not in FREE} == self._first_fields(), "a context's fields are one"
        assert message["max_buffer_delay_ms"] == 0, "else it would wait for more to say"
        if message["transcript"]:
            assert not message.get("flush"), "a flush is an input of its own"
            await self._vendor.speak(self._socket, message)
        elif message.get("flush"):
            await self._socket.flush_done(message["context_id"], self.flush_id)
            self.flush_id += 1
        else:
            assert not message["continue"], "nothing is no input"

    def _first_fields(self) -> dict[str, Any]:
        return {k: v for k, v in self._first.items() if k not in FREE}


class CartesiaSocket:
    """One connection and the contexts on it."""

    def __init__(self, vendor: CartesiaVendor, ws: web.WebSocketResponse, request: web.Request) -> None:
        self.ws = ws
        self._vendor = vendor
        self._request = request
        self._contexts: dict[str, CartesiaContext] = {}

    def forget(self) -> None:
        """Forget the contexts that are over."""
        self._contexts = {key: known for key, known in self._contexts.items() if not known.task.done()}

    async def serve(self) -> None:
        """Read until the client goes; then nothing is spoken any more."""
        try:
            async for message in self.ws:
                if message.type is WSMsgType.TEXT:
                    await self._take(json.loads(message.data))
        finally:
            tasks = [context.task for context in self._contexts.values()]
            for task in tasks:
                task.cancel()
            failures = await asyncio.gather(*tasks, return_exceptions=True)
            self._vendor.wrong += [f for f in failures if isinstance(f, AssertionError)]

    async def _take(self, message: dict[str, Any]) -> None:
        context_id = message["context_id"]
        if message.get("cancel"):
            self._contexts[context_id].task.cancel()
            self._vendor.canceled.put_nowait(context_id)
            with suppress(ConnectionError):  # what is being generated still comes
                await self.chunk(context_id, tone(480, 2_000.0).astype("<i2").tobytes())
                await self.done(context_id)
            return
        if message["transcript"]:
            self._vendor.received.append(message)
            self._vendor.begun.set()
        context = self._contexts.get(context_id)
        if context is None:
            context = self._contexts[context_id] = CartesiaContext(self, self._vendor, message)
        if context.expired:
            await self.error(context_id, 400, None)
        elif not context.refused:
            context.put(message)

    async def chunk(self, context_id: str, octets: bytes) -> None:
        """Send sound."""
        sound = base64.b64encode(octets).decode()
        fields = {"data": sound, "done": False, "status_code": 206, "step_time": 1.0}
        await self.send(type="chunk", context_id=context_id, flush_id=self._contexts[context_id].flush_id, **fields)

    async def flush_done(self, context_id: str, flush_id: int) -> None:
        """Say that all that came before the flush has been spoken."""
        fields = {"done": False, "flush_done": True, "flush_id": flush_id, "status_code": 206}
        await self.send(type="flush_done", context_id=context_id, **fields)

    async def done(self, context_id: str) -> None:
        """Say that the context is at its end."""
        await self.send(type="done", context_id=context_id, done=True, status_code=200)

    async def error(self, context_id: str | None, status: int, code: str | None) -> None:
        """Refuse; the message quotes what must not be told. That is a context's end."""
        for known in [context_id] if context_id else self._contexts:
            self._contexts[known].refused = True
        fields = {"context_id": context_id} if context_id else {}
        await self.send(
            type="error", done=True, status_code=status, error_code=code, title="No", message=f"{KEY}: words", **fields
        )

    async def send(self, **message: Any) -> None:
        """Send any message."""
        await self.ws.send_str(json.dumps(message))

    def drop(self) -> None:
        """Reset the connection."""
        assert self._request.transport is not None
        self._request.transport.abort()


async def cartesia_speaks(socket: CartesiaSocket, message: dict[str, Any]) -> None:
    """Speak the text, in pieces that cut through samples."""
    context_id = message["context_id"]
    if message["voice"] not in KNOWN_VOICES:
        await socket.error(context_id, 404, "voice_not_found")
        return
    octets = spoken(message["transcript"].rstrip(), message.get("generation_config", {}).get("speed", 1.0))
    for i in range(0, len(octets), 4097):
        await socket.chunk(context_id, octets[i : i + 4097])


# --- all of them, for tests that know nothing of vendors


@contextmanager
def all_vendors(answer: Script | None = None) -> Iterator[dict[str, str]]:
    """Serve all three from a thread of their own; yields the settings with which their engines work.

    ``answer`` is given instead of what they would say.
    """
    settings: dict[str, str] = {}
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        scripts = {
            "GROQ": HttpVendor(answer or saying("That ", "sounds ", "good.")).handle,
            "ELEVENLABS": HttpVendor(answer or eleven_speaks).handle,
            "CARTESIA": answer or CartesiaVendor(cartesia_speaks).handle,
        }
        async with AsyncExitStack() as stack:
            for name, handle in scripts.items():
                settings[f"{name}_BASE_URL"] = await stack.enter_async_context(serving(handle))
                settings[f"{name}_API_KEY"] = KEY
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="vendors")
    thread.start()
    try:
        assert ready.wait(10.0)
        yield settings
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
