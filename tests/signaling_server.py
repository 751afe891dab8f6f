"""A real server on loopback with signaling's routes, over calls that only remember what was asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from pipeline.errors import ProtocolError
from signaling.calls import CALLS, Answer, Candidate, Offer
from signaling.routes import SignalingConfig, add_routes

NOON_S = 1_767_355_200.0
SDP = Path(__file__).parent / "fixtures" / "sdp"
OFFER = (SDP / "whip-client.sdp").read_bytes().decode()
"""As a WHIP client writes it: ufrag EsAw, one audio section."""


class FakeCalls:
    """Calls that are all words: offers are answered with a numbered id, and whatever is in ``fault`` is raised."""

    def __init__(self) -> None:
        """Nothing is open."""
        self.offers: list[Offer] = []
        self.candidates: list[Candidate] = []
        self.open: set[str] = set()
        self.fault: BaseException | None = None
        self.entered = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.hung_up = asyncio.Event()

    async def accept(self, offer: Offer) -> Answer:
        """Answer, once it may."""
        self.offers.append(offer)
        self.entered.set()
        if self.fault is not None:
            raise self.fault
        if offer.restart_of is not None and offer.restart_of not in self.open:
            raise ProtocolError("no such call", param="pc_id", status=404)
        await self.may_answer.wait()
        call_id = f"call-{len(self.offers)}"
        self.open.add(call_id)
        return Answer("v=0\r\nanswer\r\n", call_id)

    async def add_candidates(self, call_id: str, candidates: Sequence[Candidate]) -> None:
        """Remember them."""
        self._require(call_id)
        self.candidates += candidates

    async def hang_up(self, call_id: str) -> None:
        """Close a call."""
        self._require(call_id)
        self.open.discard(call_id)
        self.hung_up.set()

    def _require(self, call_id: str) -> None:
        if call_id not in self.open:
            raise ProtocolError("no such call", param="pc_id", status=404)


Client = TestClient[web.Request, web.Application]
Test = Callable[[Client, FakeCalls], Awaitable[None]]


@asynccontextmanager
async def serving(
    config: SignalingConfig | None = None,
    *,
    monotonic_s: Callable[[], float] | None = None,
    handler_cancellation: bool = False,
    before_start: Callable[[web.Application], object] = lambda app: None,
) -> AsyncIterator[tuple[Client, FakeCalls]]:
    """Serve as the product does (a handler outlives its client unless ``handler_cancellation``), and give a client."""
    app = web.Application()
    calls = FakeCalls()
    app[CALLS] = calls
    clocks = {"monotonic_s": monotonic_s} if monotonic_s else {}
    add_routes(app, config, utc_s=lambda: NOON_S, **clocks)
    add_probes(app)
    before_start(app)

    async def make_runner(**options: Any) -> web.AppRunner:
        return web.AppRunner(app, **options | {"handler_cancellation": handler_cancellation, "lingering_time": 0.5})

    server = TestServer(app)
    server._make_runner = make_runner  # type: ignore[method-assign]  # it would cancel whatever is asked
    async with TestClient(server) as client:
        yield client, calls


def add_probes(app: web.Application) -> None:
    """Add routes of somebody else, to see what signaling does to the whole application."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="page")

    async def broken(request: web.Request) -> web.Response:
        raise RuntimeError("secret-inner-text")

    app.router.add_get("/", page)
    app.router.add_get("/static/app.js", page)
    app.router.add_get("/private", page)
    app.router.add_get("/broken", broken)


def check(test: Test, config: SignalingConfig | None = None) -> None:
    """Run a test against a server of its own."""

    async def main() -> None:
        async with serving(config) as (client, calls):
            await test(client, calls)

    asyncio.run(main())


def offer_body(**more: Any) -> dict[str, Any]:
    """The body of ``POST /api/offer``."""
    return {"sdp": OFFER, "type": "offer"} | more


async def error_of(response: ClientResponse, status: int) -> dict[str, Any]:
    """Assert the one shape of errors and its status; return the error."""
    assert response.status == status, await response.text()
    body = await response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param"]
    assert body["error"]["message"]
    return dict(body["error"])
