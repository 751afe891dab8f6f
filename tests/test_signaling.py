"""SmallWebRTC's routes over real HTTP: what is answered, what is refused, and that nothing stays of who left."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse, web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import EngineError, EngineUnavailable, Overloaded, ProtocolError
from signaling.auth import Access
from signaling.bodies import BODY_MAX_BYTES, read_body
from signaling.calls import Candidate, Offer
from signaling.errors import answer_errors
from signaling.rate_limit import RateLimit, TokenBuckets
from signaling.routes import SignalingConfig
from signaling.started import StartedSessions
from tests.signaling_server import OFFER, Client, FakeCalls, check, error_of, offer_body, serving

CANDIDATE = "candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw"


# Offers


def test_an_offer_is_answered() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/api/offer", json=offer_body())
        assert response.status == 200
        assert await response.json() == {"sdp": "v=0\r\nanswer\r\n", "type": "answer", "pc_id": "call-1"}
        assert response.headers["Cache-Control"] == "no-store"
        assert calls.offers == [Offer(OFFER, "127.0.0.1", {})]

    check(test)


@pytest.mark.parametrize("name", ["request_data", "requestData"])
def test_request_data_names_the_agent(name: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        await client.post("/api/offer", json=offer_body(**{name: {"agent": "clerk"}}))
        assert calls.offers[0].request == {"agent": "clerk"}

    check(test)


def test_what_the_javascript_client_sends_first_is_a_first_offer() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/api/offer", json=offer_body(pc_id=None, restart_pc=False))
        assert response.status == 200
        assert calls.offers[0].restart_of is None

    check(test)


def test_a_restart_carries_the_conversation_on() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        first = await (await client.post("/api/offer", json=offer_body())).json()
        body = offer_body(pc_id=first["pc_id"], restart_pc=True)
        response = await client.post("/api/offer", json=body)
        assert response.status == 200
        assert calls.offers[1].restart_of == first["pc_id"]

    check(test)


def test_a_restart_without_pc_id_is_a_first_offer() -> None:
    """The JavaScript client's second attempt after a first that failed."""

    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/api/offer", json=offer_body(pc_id=None, restart_pc=True))
        assert response.status == 200
        assert calls.offers[0].restart_of is None

    check(test)


def test_a_pc_id_without_restart_is_a_first_offer() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/api/offer", json=offer_body(pc_id="unheard-of"))
        assert response.status == 200
        assert calls.offers[0].restart_of is None

    check(test)


def test_a_restart_of_an_unknown_call_is_not_found() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/api/offer", json=offer_body(pc_id="gone", restart_pc=True))
        error = await error_of(response, 404)
        assert error["param"] == "pc_id"

    check(test)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "sdp"),
        ({"sdp": OFFER}, "type"),
        ({"sdp": 5, "type": "offer"}, "sdp"),
        ({"sdp": OFFER, "type": "answer"}, "type"),
        (offer_body(pc_id="../../etc/passwd"), "pc_id"),
        (offer_body(pc_id="x" * 65), "pc_id"),
        (offer_body(pc_id="call-1\n"), "pc_id"),
        (offer_body(pc_id=""), "pc_id"),
        (offer_body(pc_id=7), "pc_id"),
        (offer_body(restart_pc="yes"), "restart_pc"),
        (offer_body(request_data="clerk"), "request_data"),
        ([], None),
        ("offer", None),
    ],
)
def test_a_wrong_field_is_named(body: Any, param: str | None) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        error = await error_of(await client.post("/api/offer", json=body), 400)
        assert error["param"] == param
        assert error["type"] == "invalid_request_error"
        assert not calls.offers

    check(test)


@pytest.mark.parametrize(
    "text", ["", "v=0", "{", "[" * 60_000, '{"sdp": "\\ud800", "type": "offer"}', "\xff", "NaN", "null"]
)
def test_text_instead_of_json(text: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Content-Type": "application/json"}
        await error_of(await client.post("/api/offer", data=text.encode("latin-1"), headers=headers), 400)
        assert not calls.offers

    check(test)


@pytest.mark.parametrize("content_type", ["text/plain", "application/sdp", "application/x-www-form-urlencoded", "*"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_another_content_type(content_type: str, method: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Content-Type": content_type}
        response = await client.request(method, "/api/offer", data=json.dumps(offer_body()), headers=headers)
        await error_of(response, 415)
        assert not calls.offers

    check(test)


def test_a_charset_is_no_other_content_type() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        response = await client.post("/api/offer", data=json.dumps(offer_body()), headers=headers)
        assert response.status == 200

    check(test)


# Bodies


class CountingBody:
    """A chunked body without an announced length, which remembers how much of it was asked for."""

    def __init__(self, size_bytes: int) -> None:
        self.left_bytes = size_bytes

    def __aiter__(self) -> CountingBody:
        return self

    async def __anext__(self) -> bytes:
        if self.left_bytes <= 0:
            raise StopAsyncIteration
        self.left_bytes -= 16_384
        return b"x" * 16_384


@pytest.mark.parametrize("path", ["/api/offer", "/start", "/whip", "/whep?session=a"])
@pytest.mark.parametrize("chunked", [False, True])
def test_ten_megabytes_are_refused_unread(path: str, chunked: bool) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        content_type = "application/sdp" if path.startswith("/wh") else "application/json"
        data: Any = CountingBody(10_000_000) if chunked else io.BytesIO(b"x" * 10_000_000)
        response = await client.post(path, data=data, headers={"Content-Type": content_type})
        await error_of(response, 413)
        assert not calls.offers

    check(test)


def test_an_announced_length_is_enough_to_refuse() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        head = "POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 10000000\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"413"
        writer.close()
        await writer.wait_closed()

    check(test)


def test_the_limit_is_exact() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Content-Type": "application/json"}
        body = json.dumps(offer_body())
        fits = body + " " * (BODY_MAX_BYTES - len(body))
        assert (await client.post("/api/offer", data=fits, headers=headers)).status == 200
        await error_of(await client.post("/api/offer", data=fits + " ", headers=headers), 413)

    check(test)


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(body=await read_body(request, timeout_s=0.05))

    async def main() -> None:
        app = web.Application(middlewares=[answer_errors])
        app.router.add_post("/", read)
        async with TestServer(app) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
            assert (await reader.readline()).split()[1] == b"408"
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_a_body_that_is_not_what_its_headers_say(caplog: pytest.LogCaptureFixture) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        response = await client.post("/start", data=b"rubbish", headers=headers)
        await error_of(response, 400)

    check(test)
    assert not [record for record in caplog.records if record.name.startswith("signaling")]


PROXIES = [{"X-Forwarded-For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}, {"Host": "vocal.example.org"}]


@pytest.mark.parametrize(("headers", "remote"), [({}, "127.0.0.1"), *((proxy, "") for proxy in PROXIES)])
@pytest.mark.parametrize("way", ["/api/offer", "/whip"])
def test_a_caller_behind_a_proxy_on_this_machine_is_no_local_one(
    way: str, headers: dict[str, str], remote: str
) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        if way == "/whip":
            await client.post(way, data=OFFER, headers={**headers, "Content-Type": "application/sdp"})
        else:
            await client.post(way, json=offer_body(), headers=headers)
        assert [offer.remote for offer in calls.offers] == [remote]

    check(test, SignalingConfig(access=Access(origins=("https://vocal.example.org",))))


# Trickle and hang-up


async def begun(client: Client) -> str:
    """Begin a call; return its id."""
    response = await client.post("/api/offer", json=offer_body())
    return str((await response.json())["pc_id"])


@pytest.mark.parametrize("prefix", ["", "/sessions/never-started"])
def test_candidates_are_added(prefix: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        entries = [
            {"candidate": CANDIDATE, "sdp_mid": "0", "sdp_mline_index": 0},
            {"candidate": "a=" + CANDIDATE, "sdpMid": None, "sdpMLineIndex": 1, "usernameFragment": "EsAw"},
            {"candidate": "", "sdp_mid": "0", "sdp_mline_index": 0},
        ]
        body = {"pc_id": await begun(client), "candidates": entries}
        response = await client.patch(f"{prefix}/api/offer", json=body)
        assert response.status == 200
        assert await response.json() == {"status": "success"}
        assert calls.candidates == [
            Candidate(CANDIDATE, "0", 0),
            Candidate(CANDIDATE, None, 1),
            Candidate("", "0", 0),
        ]

    check(test)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"pc_id": "../x"}, "pc_id"),
        ({"pc_id": None}, "pc_id"),
        ({"candidates": None}, "candidates"),
        ({"candidates": ["x"]}, "candidates.0"),
        ({"candidates": [{}]}, "candidates.0.candidate"),
        ({"candidates": [{"candidate": "x" * 1025}]}, "candidates.0.candidate"),
        ({"candidates": [{"candidate": CANDIDATE, "sdp_mline_index": -1}]}, "candidates.0.sdp_mline_index"),
        ({"candidates": [{"candidate": CANDIDATE}] * 65}, "candidates"),
    ],
)
def test_rubbish_candidates(change: dict[str, Any], param: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        body = {"pc_id": await begun(client), "candidates": []} | change
        error = await error_of(await client.patch("/api/offer", json=body), 400)
        assert error["param"] == param
        assert not calls.candidates

    check(test)


def test_candidates_of_an_unknown_call() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        error = await error_of(await client.patch("/api/offer", json={"pc_id": "gone", "candidates": []}), 404)
        assert error["type"] == "not_found_error"

    check(test)


@pytest.mark.parametrize("prefix", ["", "/sessions/never-started"])
def test_hanging_up(prefix: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        pc_id = await begun(client)
        response = await client.delete(f"{prefix}/api/offer/{pc_id}")
        assert response.status == 200
        assert await response.json() == {"status": "success"}
        assert not calls.open
        await error_of(await client.delete(f"{prefix}/api/offer/{pc_id}"), 404)

    check(test)


@pytest.mark.parametrize("pc_id", ["%2E%2E%2Fetc%2Fpasswd", "a%00b", "x" * 65, "caf%C3%A9", "a%20b"])
def test_an_id_that_cannot_be_is_not_found(pc_id: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        calls.open.add("../etc/passwd")
        error = await error_of(await client.delete(f"/api/offer/{pc_id}"), 404)
        assert "passwd" not in error["message"]
        assert calls.open

    check(test)


# /start


def test_start_promises_a_session() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/start", json={"enableDefaultIceServers": True, "body": {"agent": "clerk"}})
        assert response.status == 200
        body = await response.json()
        assert list(body) == ["sessionId", "iceConfig"]
        assert body["iceConfig"] == {"iceServers": []}
        url = f"/sessions/{body['sessionId']}/api/offer"
        assert (await client.post(url, json=offer_body())).status == 200
        assert (await client.post(url, json=offer_body(requestData={"language": "de"}))).status == 200
        assert calls.offers[0].request == {"agent": "clerk"}
        assert calls.offers[1].request == {"agent": "clerk", "language": "de"}

    check(test)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"body": null}', b'{"transport": "webrtc", "other": 1}'])
def test_start_needs_to_be_told_nothing(body: bytes) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/start", data=body, headers={"Content-Type": "application/json"})
        assert response.status == 200
        session_id = (await response.json())["sessionId"]
        assert (await client.post(f"/sessions/{session_id}/api/offer", json=offer_body())).status == 200
        assert calls.offers[0].request == {}

    check(test)


def test_start_with_rubbish() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        error = await error_of(await client.post("/start", json={"body": "clerk"}), 400)
        assert error["param"] == "body"

    check(test)


@pytest.mark.parametrize("session_id", ["unheard-of", "%2E%2E%2Fx"])
def test_an_offer_to_a_session_nobody_started(session_id: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        error = await error_of(await client.post(f"/sessions/{session_id}/api/offer", json=offer_body()), 404)
        assert error["param"] == "sessionId"

    check(test)


def test_a_restart_outlives_its_started_session() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        pc_id = await begun(client)
        body = offer_body(pc_id=pc_id, restart_pc=True)
        assert (await client.post("/sessions/expired/api/offer", json=body)).status == 200

    check(test)


def started_at(now_s: list[float], **limits: Any) -> StartedSessions:
    """A store whose clock is ``now_s[0]``."""
    return StartedSessions(monotonic_s=lambda: now_s[0], **limits)


def test_started_sessions_expire_after_their_last_use() -> None:
    now_s = [0.0]
    store = started_at(now_s, ttl_s=600)
    session_id = store.add({"agent": "a"}, 10)
    now_s[0] = 599
    assert store.find(session_id) == {"agent": "a"}
    now_s[0] = 1198
    assert store.find(session_id) == {"agent": "a"}
    now_s[0] = 1798
    with pytest.raises(ProtocolError) as caught:
        store.find(session_id)
    assert caught.value.status == 404
    assert len(store) == 0


def test_started_sessions_are_bounded_and_newcomers_push_nobody_out() -> None:
    now_s = [0.0]
    store = started_at(now_s, ttl_s=600, max_sessions=3, max_bytes=100)
    ids = [store.add({}, 10) for _ in range(3)]
    with pytest.raises(Overloaded):
        store.add({}, 0)
    assert store.find(ids[0]) == {}
    now_s[0] = 600
    assert store.add({}, 100)
    with pytest.raises(Overloaded):
        store.add({}, 1)


# Errors


@pytest.mark.parametrize(
    ("fault", "status", "kind", "message"),
    [
        (ProtocolError("no audio is offered"), 400, "invalid_request_error", "no audio is offered"),
        (ProtocolError("unknown agent", param="agent", status=422), 422, "invalid_request_error", "unknown agent"),
        (EngineError("the voice failed"), 502, "server_error", "the voice failed"),
        (EngineUnavailable("pip install x"), 500, "server_error", "pip install x"),
        (KeyError("secret"), 500, "server_error", "internal error: the server's log says more"),
    ],
)
def test_faults_have_one_shape_and_ours_are_logged(
    fault: Exception, status: int, kind: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        calls.fault = fault
        error = await error_of(await client.post("/api/offer", json=offer_body()), status)
        assert (error["type"], error["message"]) == (kind, message)
        assert error["param"] == getattr(fault, "param", None)

    check(test)
    assert len(caplog.records) == (status >= 500)


def test_a_full_server_says_when_to_come_back() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        calls.fault = Overloaded("64 sessions are running", retry_after_s=7)
        response = await client.post("/api/offer", json=offer_body())
        error = await error_of(response, 503)
        assert error["type"] == "overloaded_error"
        assert response.headers["Retry-After"] == "7"

    check(test)


def test_the_unforeseen_is_logged_once_and_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.get("/broken")
        assert "secret-inner-text" not in await response.text()
        await error_of(response, 500)

    with caplog.at_level(logging.INFO):
        check(test)
    records = [r for r in caplog.records if r.exc_info]
    assert len(records) == 1
    assert "secret-inner-text" in (records[0].exc_text or str(records[0].exc_info))


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("GET", "/start", 405, "POST"),
        ("PUT", "/api/offer", 405, "PATCH,POST"),
        ("POST", "/api/offer/call-1", 405, "DELETE"),
    ],
)
def test_addresses_and_methods_that_are_not_there(method: str, path: str, status: int, allow: str | None) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.request(method, path)
        await error_of(response, status)
        assert response.headers.get("Allow") == allow

    check(test)


def test_a_response_that_has_begun_is_cut_not_mixed() -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"some")
        raise ProtocolError("too late")

    async def main() -> None:
        app = web.Application(middlewares=[answer_errors])
        app.router.add_get("/", stream)
        async with TestServer(app) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            whole = await reader.read()
            assert whole.count(b"HTTP/1.1") == 1
            assert b"too late" not in whole
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


# Callers who leave


async def post_and_leave(client: Client, calls: FakeCalls, path: str, content_type: str, body: str) -> None:
    """Send an offer and close the connection while it is being answered."""
    calls.may_answer.clear()
    _, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    writer.write(f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode())
    await calls.entered.wait()
    writer.transport.abort()
    for _ in range(20):  # let the server's end of the connection notice
        await asyncio.sleep(0.005)
    calls.may_answer.set()


@pytest.mark.parametrize("handler_cancellation", [False, True])
@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [("/api/offer", "application/json", json.dumps(offer_body())), ("/whip", "application/sdp", OFFER)],
)
def test_a_caller_who_left_leaves_no_call(
    handler_cancellation: bool, path: str, content_type: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(handler_cancellation=handler_cancellation) as (client, calls):
            await post_and_leave(client, calls, path, content_type, body)
            if not handler_cancellation:  # else the fake itself was canceled, before there was a call
                await asyncio.wait_for(calls.hung_up.wait(), 20)
            assert len(calls.offers) == 1
            assert not calls.open
            assert (await client.post("/api/offer", json=offer_body())).status == 200

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert not caplog.records


def test_a_call_whose_answer_cannot_be_written_is_hung_up() -> None:
    async def fail(request: web.Request, response: web.StreamResponse) -> None:
        raise RuntimeError("no response")

    async def main() -> None:
        async with serving(before_start=lambda app: app.on_response_prepare.append(fail)) as (client, calls):
            with pytest.raises(ClientError):
                await client.post("/api/offer", json=offer_body())
            await asyncio.wait_for(calls.hung_up.wait(), 20)
            assert not calls.open

    asyncio.run(main())


# Rate limit


def test_one_address_may_not_call_too_often() -> None:
    now_s = [0.0]
    config = SignalingConfig(offers=RateLimit(burst=2, per_minute=6, loopback_too=True))

    async def main() -> None:
        async with serving(config, monotonic_s=lambda: now_s[0]) as (client, calls):
            for path in ("/start", "/api/offer"):
                assert (await client.post(path, json=offer_body())).status == 200
            responses: list[ClientResponse] = [
                await client.post("/start", json={}),
                await client.post("/api/offer", json=offer_body()),
                await client.post("/whip", data=OFFER, headers={"Content-Type": "application/sdp"}),
                await client.post("/whep?session=x", data=OFFER, headers={"Content-Type": "application/sdp"}),
            ]
            for response in responses:
                error = await error_of(response, 429)
                assert error["type"] == "rate_limit_error"
                assert response.headers["Retry-After"] == "10"
            assert len(calls.offers) == 1
            now_s[0] = 10
            assert (await client.post("/api/offer", json=offer_body())).status == 200

    asyncio.run(main())


def test_this_machine_itself_is_exempt() -> None:
    buckets = TokenBuckets(RateLimit(burst=1, per_minute=1), lambda: 0.0)
    for remote in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert [buckets.take(remote) for _ in range(3)] == [0, 0, 0]
    assert [buckets.take("192.0.2.1") for _ in range(2)] == [0, 60]
    assert TokenBuckets(RateLimit(burst=1, per_minute=0)).take("192.0.2.1") == 0


def test_addresses_are_told_apart_as_hosts_are() -> None:
    buckets = TokenBuckets(RateLimit(burst=1, per_minute=1), lambda: 0.0)
    assert buckets.take("2001:db8::1") == 0
    assert buckets.take("2001:db8::ffff:2") > 0, "one host has all of its /64"
    assert buckets.take("2001:db8:0:1::1") == 0
    assert buckets.take("192.0.2.1") == 0
    assert buckets.take("::ffff:192.0.2.1") > 0
    assert buckets.take("") == 0
    assert buckets.take("") > 0


def test_the_table_of_addresses_is_bounded() -> None:
    buckets = TokenBuckets(RateLimit(burst=1, per_minute=1), lambda: 0.0, max_addresses=10)
    for n in range(1000):
        buckets.take(f"198.51.{n // 250}.{n % 250}")
    assert len(buckets) == 10


# Fuzz

KEYS = st.sampled_from(["sdp", "type", "pc_id", "restart_pc", "request_data", "requestData", "candidates", "body", "x"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["offer", CANDIDATE, OFFER])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.sampled_from(["candidate", "sdp_mid"]), inner, max_size=4)
    ),
    max_leaves=10,
)
BODIES = (
    st.dictionaries(KEYS, JSON).map(json.dumps).map(str.encode)
    | st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
)
ROUTES = st.sampled_from([("POST", "/api/offer"), ("PATCH", "/api/offer"), ("POST", "/start")])


def test_rubbish_is_accepted_or_refused_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with asyncio.Runner() as runner:
        stack = serving()
        client, _ = runner.run(stack.__aenter__())

        @settings(max_examples=150, deadline=None)
        @given(ROUTES, BODIES)
        def send(route: tuple[str, str], body: bytes) -> None:
            response = runner.run(client.request(*route, data=body, headers={"Content-Type": "application/json"}))
            assert response.status in (200, 400, 404)
            runner.run(response.read())

        send()
        runner.run(stack.__aexit__(None, None, None))
    assert not caplog.records
