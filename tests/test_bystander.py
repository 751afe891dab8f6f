"""Whatever one client does, another's call hears nothing of it: the whole server, real HTTP, real UDP.

A bystander listens to a long answer while a nuisance does its worst. The answer must reach them whole: not interrupted,
no session lost, and (almost) every sample of it.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer

from media_server.app import HUB, create_app
from media_server.config import load
from tests.rtc import until
from tests.rtc_caller import Caller

Http = TestClient[web.Request, web.Application]

ANSWER = "This long answer is a tone and takes three seconds."
CHARACTER_MS = 60
STAND_INS = {
    "VOCAL_VAD": "energy",
    "VOCAL_STT": "scripted",
    "VOCAL_LLM": "echo",
    "VOCAL_ECHO_TEXT": ANSWER,
    "VOCAL_TTS": "tone",
    "VOCAL_TONE_CHARACTER_MS": str(CHARACTER_MS),
    "VOCAL_TURN": "silence",
    "VOCAL_ENDPOINT_MS": "200",
    "VOCAL_ORIGINS": "https://page.example",
}
TONE_SAMPLES = len(ANSWER) * CHARACTER_MS * 16


@pytest.fixture(autouse=True)
def away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a server writes out of the developer's folder."""
    monkeypatch.chdir(tmp_path)


@asynccontextmanager
async def server() -> AsyncIterator[Http]:
    async with TestClient(TestServer(create_app(load(STAND_INS)))) as http:
        yield http


@asynccontextmanager
async def called(http: Http) -> AsyncIterator[Caller]:
    """Call over HTTP as a client does."""
    caller = Caller()
    try:
        answer = await (await http.post("/api/offer", json={"sdp": await caller.offer(), "type": "offer"})).json()
        caller.call_id = answer["pc_id"]
        await caller.take(answer["sdp"])
        await until(lambda: caller.connection.connectionState == "connected")
        assert caller.channel is not None
        await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
        yield caller
    finally:
        await caller.close()


async def _status(http: Http, method: str, path: str, **request: object) -> int:
    async with http.request(method, path, **request) as response:  # type: ignore[arg-type]
        body = await response.json()
        assert set(body["error"]) == {"message", "type", "param"}, body
        assert body["error"]["message"]
        return response.status


async def bad_offers(http: Http) -> None:
    video = (
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n"
    )
    for sdp in ("", "rubbish", "v=0\r\n", video, video.replace("video", "application"), "v=0\r\n" * 8_000):
        assert await _status(http, "POST", "/api/offer", json={"sdp": sdp, "type": "offer"}) in (400, 413)


async def bad_bodies(http: Http) -> None:
    json_type = {"Content-Type": "application/json"}
    assert await _status(http, "POST", "/api/offer", data=b"hello", headers=json_type) == 400
    assert await _status(http, "POST", "/api/offer", data=io.BytesIO(b"x" * 10_000_000), headers=json_type) == 413
    form = FormData({"sdp": "v=0"})
    assert await _status(http, "POST", "/api/offer", data=form()) == 415


async def strangers(http: Http) -> None:
    candidate = {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdp_mid": "0", "sdp_mline_index": 0}
    patch = {"pc_id": "nobody", "candidates": [candidate]}
    assert await _status(http, "PATCH", "/api/offer", json=patch) == 404
    assert await _status(http, "DELETE", "/api/offer/nobody") == 404
    offer = {"sdp": "v=0", "type": "offer", "request_data": {"agent": "nobody"}}
    assert await _status(http, "POST", "/api/offer", json=offer) == 404
    assert await _status(http, "POST", "/api/offer", json={}, headers={"Origin": "https://evil.example"}) == 403


async def rubbish_candidates(http: Http) -> None:
    async with called(http) as nuisance:
        for line in ("rubbish", "candidate:1 1 udp", "candidate:" + "9" * 5_000):
            candidate = {"candidate": line, "sdp_mid": "0", "sdp_mline_index": 0}
            patch = {"pc_id": nuisance.call_id, "candidates": [candidate]}
            assert await _status(http, "PATCH", "/api/offer", json=patch) in (400, 413)
        many = [
            {"candidate": f"candidate:{i} 1 udp {i} 192.0.2.{i} 9 typ host", "sdp_mid": "0", "sdp_mline_index": 0}
            for i in range(1, 60)
        ]
        assert await _status(http, "PATCH", "/api/offer", json={"pc_id": nuisance.call_id, "candidates": many}) == 400


async def noise_on_the_port(http: Http) -> None:
    async with called(http) as nuisance:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for candidate in [c for c in nuisance.ice().remote_candidates if ":" not in c.host]:
                for n in range(300):
                    stranger.sendto(bytes([n % 256]) + os.urandom(n), (candidate.host, candidate.port))
                    await asyncio.sleep(0)


async def rubbish_on_the_data_channel(http: Http) -> None:
    async with called(http) as nuisance:
        assert nuisance.channel is not None
        for rubbish in ("{", "x" * 60_000, b"\xff" * 1_000):
            nuisance.channel.send(rubbish)
        await nuisance.say(0.3)
        await nuisance.hears("bot-started-speaking")


async def somebody_vanishes_while_spoken_to(http: Http) -> None:
    async with called(http) as nuisance:
        nuisance.send("send-text", content="hello")
        await nuisance.hears("bot-started-speaking")
        nuisance.vanish()


async def many_come_and_go(http: Http) -> None:
    for _ in range(5):
        async with called(http):
            await asyncio.sleep(0)


NUISANCES = (
    bad_offers,
    bad_bodies,
    strangers,
    rubbish_candidates,
    noise_on_the_port,
    rubbish_on_the_data_channel,
    somebody_vanishes_while_spoken_to,
    many_come_and_go,
)


@pytest.mark.parametrize("nuisance", NUISANCES, ids=lambda nuisance: str(nuisance.__name__))
def test_a_bystander_notices_nothing(nuisance: Callable[[Http], Awaitable[None]]) -> None:
    async def main() -> None:
        async with server() as http, called(http) as bystander:
            await bystander.say(0.3)
            await until(lambda: bystander.loud_samples > 1_000)
            await nuisance(http)
            turn = (await bystander.hears("server-message"))["data"]
            assert (turn["t"], turn["interrupted"], turn["agent"]) == ("turn", False, ANSWER)
            await until(lambda: bystander.loud_samples > TONE_SAMPLES * 0.85)
            assert http.app is not None
            assert http.app[HUB].sessions >= 1
            await http.delete(f"/api/offer/{bystander.call_id}")

    asyncio.run(main())
