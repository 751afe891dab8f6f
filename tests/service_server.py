"""A real server on loopback with the services' routes: real engines by name, or a test's own, and a real catalogue."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import ClientResponse, ClientSession, web

from compat_ws.backend import CATALOGUE, ENGINES, LISTENER, Outcome, ServiceListener
from compat_ws.routes import add_service_routes
from media_server.engine_set import EngineSet
from media_server.server import new_runner
from pipeline.catalogue import Catalogue
from pipeline.engines import Chosen, Kind
from pipeline.errors import EngineUnavailable, ProtocolError
from pipeline.voices import VoiceSamples
from signaling.errors import answer_errors

SERVED: tuple[Kind, ...] = ("stt", "llm", "tts")


class Counts:
    """What the listener was told: ``begun``, ``produced`` items, and each outcome, in order."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.begun: list[Kind] = []
        self.produced = 0
        self.ended: list[tuple[Kind, Outcome]] = []
        self._changed = asyncio.Event()

    def listener(self) -> ServiceListener:
        """Return what counts here."""
        return ServiceListener(self._begin, self._produce, self._end)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; the test's own time limit is the limit."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _begin(self, kind: Kind) -> None:
        self.begun.append(kind)
        self._changed.set()

    def _produce(self, kind: Kind) -> None:
        self.produced += 1
        self._changed.set()

    def _end(self, kind: Kind, outcome: Outcome) -> None:
        self.ended.append((kind, outcome))
        self._changed.set()


class Shelf:
    """The engines a test made itself; ``lacking`` names those that cannot be used."""

    def __init__(self, engines: Mapping[Kind, Any], named: Mapping[str, Any], lacking: Mapping[str, str]) -> None:
        """``engines`` are the server's own choices, ``named`` what else may be asked for."""
        self._served = {kind: Chosen("own", engine, "") for kind, engine in engines.items()}
        self._named = named
        self._lacking = lacking

    async def get(self, kind: Kind, name: str | None = None) -> Chosen:
        """Return an engine."""
        if name in (None, "own"):
            return self._served[kind]
        if name in self._lacking:
            raise EngineUnavailable(self._lacking[name])
        if name not in self._named:
            raise ProtocolError(f"there is no {kind} engine {name!r} here", param=kind)
        return Chosen(name, self._named[name], "")

    def served(self) -> Mapping[Kind, Chosen]:
        """Return the server's own choices."""
        return self._served


@dataclass
class Service:
    """A running server and a client of it."""

    url: str
    client: ClientSession
    counts: Counts
    catalogue: Catalogue
    app: web.Application = field(repr=False)

    async def post(self, path: str, body: Any, **headers: str) -> ClientResponse:
        """Send JSON; the answer is read whole."""
        octets = io.BytesIO(json.dumps(body).encode())
        headers = {"Content-Type": "application/json", **headers}
        response = await self.client.post(self.url + path, data=octets, headers=headers)
        await response.read()
        return response


Test = Callable[[Service], Awaitable[None]]


@asynccontextmanager
async def shelf(
    engines: Mapping[Kind, Any], named: Mapping[str, Any] | None = None, lacking: Mapping[str, str] | None = None
) -> AsyncIterator[Shelf]:
    """Offer a test's own engines."""
    yield Shelf(engines, named or {}, lacking or {})


def engine_set(
    settings: Mapping[str, str] | None = None, *, stt: str = "scripted", llm: str = "echo", tts: str = "tone"
) -> EngineSet:
    """Offer the product's engines by name; stand-ins where none is named."""
    return EngineSet({"stt": stt, "llm": llm, "tts": tts}, settings or {})


@asynccontextmanager
async def serving(engines: Any = None) -> AsyncIterator[Service]:
    """Serve as the product does: the same runner, the same middleware, whose errors have one shape."""
    app = web.Application(middlewares=[answer_errors])
    counts = Counts()
    app[LISTENER] = counts.listener()
    add_service_routes(app, SERVED)
    with TemporaryDirectory() as folder, closing(VoiceSamples(Path(folder) / "voices")) as samples:
        async with engines or engine_set() as source, Catalogue(f"sqlite:///{folder}/vocal.db", samples) as catalogue:
            app[ENGINES], app[CATALOGUE] = source, catalogue
            runner = new_runner(app)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                async with ClientSession() as client:
                    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                    yield Service(url, client, counts, catalogue, app)
            finally:
                await runner.cleanup()


def check(test: Test, engines: Any = None) -> None:
    """Run a test against a server of its own."""

    async def main() -> None:
        async with asyncio.timeout(60), serving(engines) as service:
            await test(service)

    asyncio.run(main())


async def error_of(response: ClientResponse, status: int) -> dict[str, Any]:
    """Assert the one shape of errors and its status; return the error."""
    assert response.status == status, await response.text()
    body = await response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param"]
    assert body["error"]["message"]
    return dict(body["error"])


def events_of(text: str) -> list[str]:
    """Return the data of server-sent events."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]
