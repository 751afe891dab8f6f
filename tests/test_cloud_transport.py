"""A pool of connections outlives requests that are canceled at the worst moment, against a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from pipeline.cloud import connections
from pipeline.cloud_transport import SENT, PatientTransport, WarmPool

from .rtc import until
from .vendors import HttpVendor, begin, hang_up, run, serving, stall

MOMENTS = ("connection.connect_tcp.started", "connection.connect_tcp.complete", SENT)
CONNECTIONS = 10


async def well(request: web.Request) -> web.StreamResponse:
    return web.Response(text="well")


async def endless(request: web.Request) -> web.StreamResponse:
    response = await begin(request, "text/plain")
    while True:
        await response.write(b"more ")
        await asyncio.sleep(0.01)


def small_pool(*, patient: bool) -> httpx.AsyncClient:
    """Return a client that has room for few connections, and waits for one of them for a second."""
    plain = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=CONNECTIONS))
    return httpx.AsyncClient(transport=PatientTransport(plain) if patient else plain, timeout=httpx.Timeout(5, pool=1))


@asynccontextmanager
async def pool_for(url: str) -> AsyncIterator[WarmPool]:
    """Return the pool that the vendors' engines have."""
    pool = connections(5.0, url)
    try:
        yield pool
    finally:
        await pool.aclose()


async def cancel_at(client: httpx.AsyncClient, url: str, moment: str) -> None:
    """Ask, and cancel as soon as ``moment`` has come."""

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == moment:
            asking.cancel()

    asking = asyncio.create_task(client.get(url, extensions={"trace": trace}))
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("moment", MOMENTS)
def test_however_many_are_canceled_the_next_one_is_answered(moment: str) -> None:
    async def main() -> None:
        async with serving(well) as url, small_pool(patient=True) as client:
            for _ in range(3 * CONNECTIONS):
                await cancel_at(client, url, moment)
            answers = await asyncio.gather(*(client.get(url) for _ in range(2 * CONNECTIONS)))
            assert {answer.text for answer in answers} == {"well"}

    run(main())


def test_the_library_alone_would_answer_no_more() -> None:
    """Where this fails, httpcore was mended, and `pipeline.cloud_transport` can go."""

    async def main() -> None:
        async with serving(well) as url, small_pool(patient=False) as client:
            for _ in range(CONNECTIONS):
                await cancel_at(client, url, "connection.connect_tcp.complete")
            with pytest.raises(httpx.PoolTimeout):
                await client.get(url)

    run(main())


def test_canceling_returns_at_once_and_cuts_the_connection() -> None:
    async def main() -> None:
        async with serving(stall) as url, pool_for(url) as pool:
            loop = asyncio.get_running_loop()
            for _ in range(20):
                began_s = loop.time()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(pool.client.get(url), 0.05)
                assert loop.time() - began_s < 3.0
        async with serving(endless) as url, pool_for(url) as pool:
            async with pool.client.stream("GET", url) as answer:
                async for _ in answer.aiter_bytes():
                    break
            assert answer.is_closed

    run(main())


def test_a_pool_is_closed_with_what_is_just_connecting() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, socket.create_connection(deaf.getsockname()):
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"  # whose queue is full
            pool = connections(5.0, url)
            asking = asyncio.create_task(pool.client.get(url))
            pool.prepare()
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            began_s = asyncio.get_running_loop().time()
            await pool.aclose()
            await pool.aclose()
            pool.prepare()
            assert asyncio.get_running_loop().time() - began_s < 3.0

    run(main())


def test_what_fails_is_told_and_nothing_is_left_of_it() -> None:
    async def main() -> None:
        async with serving(hang_up) as url, pool_for(url) as pool:
            with pytest.raises(httpx.RemoteProtocolError):
                await pool.client.get(url)
            await cancel_at(pool.client, url, SENT)
        async with pool_for(url) as pool:
            pool.prepare()
            with pytest.raises(httpx.ConnectError):
                await pool.client.get(url)

    run(main())


def test_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def proxy(request: web.Request) -> web.StreamResponse:
        asked.append(str(request.url))
        return web.Response(text="from the proxy")

    async def main() -> None:
        async with serving(proxy) as url:
            monkeypatch.setenv("http_proxy", url)
            async with pool_for("http://vendor.test") as pool:
                assert (await pool.client.get("http://vendor.test/v1")).text == "from the proxy"
                pool.prepare()
        assert asked == ["http://vendor.test/v1"]

    run(main())


def test_a_connection_is_there_before_it_is_needed_and_again_after_it_was_cut() -> None:
    async def main() -> None:
        vendor = HttpVendor(well)
        async with serving(vendor.handle) as url, pool_for(url) as pool:
            for times in range(1, 4):
                for _ in range(3):  # one is enough
                    pool.prepare()
                    await until(lambda: len(vendor.met) == times and pool._transport().idle)  # noqa: B023
                await pool.client.post(url, json={})
                assert vendor.asked[-1].peer == vendor.met[-1]
                await until(lambda: pool._transport().idle)
                vendor.script = endless
                async with pool.client.stream("POST", url, json={}) as answer:
                    async for _ in answer.aiter_bytes():
                        break
                vendor.script = well
            assert len(set(vendor.met)) == 3

    run(main())
