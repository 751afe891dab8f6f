"""WHIP to the letter of RFC 9725, and WHEP, over real HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDictProxy

from pipeline.errors import Overloaded, ProtocolError
from signaling.calling import OFFER_BUCKETS
from signaling.calls import CALLS, Candidate, Offer
from signaling.errors import answer_errors
from signaling.ice import IceServers
from signaling.rate_limit import RateLimit, TokenBuckets
from signaling.sdpfrag import IceCredentials, parse_sdpfrag
from signaling.whip import Whip
from tests.signaling_server import NOON_S, OFFER, Client, FakeCalls, check, error_of

SDP = {"Content-Type": "application/sdp"}
FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
CANDIDATE = "candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1"
FRAGMENT = "\r\n".join(
    [
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=mid:0",
        "a=ice-ufrag:EsAw",
        "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1",
        f"a={CANDIDATE}",
        "a=end-of-candidates",
        "",
    ]
)
RESTART = FRAGMENT.replace("EsAw", "ysXw").replace("P2uYro0UCOQ4zxjKXaWCBui1", "vw5LmwG4y/e6dPP/zAP9Gp5k")


async def created(client: Client, url: str = "/whip") -> CIMultiDictProxy[str]:
    """Begin a session; return the headers of its 201."""
    response = await client.post(url, data=OFFER, headers=SDP)
    assert response.status == 201, await response.text()
    return response.headers


def patch_headers(etag: str | None, content_type: str = FRAGMENT_TYPE) -> dict[str, str]:
    """The headers of a trickle request."""
    return {"Content-Type": content_type} | ({} if etag is None else {"If-Match": etag})


# The endpoint


def test_an_offer_creates_a_session() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/whip", data=OFFER, headers=SDP)
        assert response.status == 201
        assert response.headers["Content-Type"] == "application/sdp"
        assert await response.text() == "v=0\r\nanswer\r\n"
        assert response.headers["Location"] == "/whip/call-1"
        etag = response.headers["ETag"]
        assert etag[0] == etag[-1] == '"'
        assert len(etag) > 12
        assert response.headers["Accept-Patch"] == FRAGMENT_TYPE
        assert "Link" not in response.headers
        assert calls.offers == [Offer(OFFER, "127.0.0.1", {})]

    check(test)


def test_every_session_has_an_entity_tag_of_its_own() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        assert len({(await created(client))["ETag"] for _ in range(5)}) == 5

    check(test)


def test_the_agent_is_named_in_the_query() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        await created(client, "/whip?agent=clerk")
        assert calls.offers[0].request == {"agent": "clerk"}

    check(test)


@pytest.mark.parametrize("path", ["/whip", "/whep?session=call-1"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", FRAGMENT_TYPE])
def test_an_offer_of_another_type(path: str, content_type: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        await error_of(await client.post(path, data=OFFER, headers={"Content-Type": content_type}), 415)
        assert not calls.offers

    check(test)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (ProtocolError("no audio is offered"), 400),
        (ProtocolError("no codec in common", status=422), 422),
        (Overloaded("full", retry_after_s=3), 503),
    ],
)
def test_an_offer_that_is_refused_creates_nothing(fault: Exception, status: int) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        calls.fault = fault
        response = await client.post("/whip", data=OFFER, headers=SDP)
        await error_of(response, status)
        assert "Location" not in response.headers
        assert response.headers.get("Retry-After") == ("3" if status == 503 else None)
        await error_of(await client.get("/whip/call-1"), 404)

    check(test)


def test_an_offer_that_is_no_text() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        await error_of(await client.post("/whip", data=b"v=0\xff\xfe", headers=SDP), 400)

    check(test)


@pytest.mark.parametrize("path", ["/whip", "/whep", "/whip/call-1", "/whep/call-1"])
def test_options_say_what_is_taken(path: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.options(path)
        assert response.status == 200
        assert response.headers["Accept-Post"] == "application/sdp"
        assert "OPTIONS" in response.headers["Allow"]
        assert "Link" not in response.headers

    check(test)


def test_a_cors_preflight_is_answered_in_full() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        origin = f"http://{client.host}:{client.port}"
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "if-match",
        }
        response = await client.options("/whip/call-1", headers=asked)
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
        assert "If-Match" in response.headers["Access-Control-Allow-Headers"]

    check(test)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_there_is_nothing_to_read(method: str) -> None:
    """Section 4.1: a 2xx with no content."""

    async def test(client: Client, calls: FakeCalls) -> None:
        location = (await created(client))["Location"]
        for path in ("/whip", "/whep", location):
            response = await client.request(method, path)
            assert response.status == 204
            assert await response.read() == b""
        assert (await client.request(method, "/whip/unheard-of")).status == 404

    check(test)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/whip"), ("DELETE", "/whip"), ("PATCH", "/whip")])
def test_other_methods_of_the_endpoint(method: str, path: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.request(method, path)
        await error_of(response, 405)
        assert "POST" in response.headers["Allow"]

    check(test)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_other_methods_of_a_session(method: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        location = (await created(client))["Location"]
        response = await client.request(method, location)
        await error_of(response, 405)
        assert {"PATCH", "DELETE"} <= set(response.headers["Allow"].split(","))

    check(test)


# Trickle


def test_candidates_are_added() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        response = await client.patch(headers["Location"], data=FRAGMENT, headers=patch_headers(headers["ETag"]))
        assert response.status == 204
        assert await response.read() == b""
        assert "ETag" not in response.headers
        assert calls.candidates == [Candidate(CANDIDATE, "0", None), Candidate("", "0", None)]

    check(test)


def test_the_tag_may_be_one_of_several_or_any() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        for tags in (f'"other", {headers["ETag"]}', "*"):
            response = await client.patch(headers["Location"], data=FRAGMENT, headers=patch_headers(tags))
            assert response.status == 204

    check(test)


def test_without_if_match() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        location = (await created(client))["Location"]
        await error_of(await client.patch(location, data=FRAGMENT, headers=patch_headers(None)), 428)
        assert not calls.candidates

    check(test)


@pytest.mark.parametrize("tag", ['"other"', "other", "W/{}", '"'])
def test_with_a_wrong_if_match(tag: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        sent = patch_headers(tag.format(headers["ETag"]))
        await error_of(await client.patch(headers["Location"], data=FRAGMENT, headers=sent), 412)
        assert not calls.candidates

    check(test)


def test_the_tag_of_another_session_is_a_wrong_one() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        one, other = await created(client), await created(client)
        await error_of(await client.patch(one["Location"], data=FRAGMENT, headers=patch_headers(other["ETag"])), 412)

    check(test)


@pytest.mark.parametrize("own_tag", [False, True])
@pytest.mark.parametrize("text", [RESTART, RESTART.replace("ysXw", "EsAw"), "a=ice-ufrag:ysXw\r\n"])
def test_an_ice_restart(text: str, own_tag: bool) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        sent = patch_headers(headers["ETag"] if own_tag else "*")
        await error_of(await client.patch(headers["Location"], data=text, headers=sent), 422)
        assert not calls.candidates
        assert calls.open, "the call goes on as it was"

    check(test)


@pytest.mark.parametrize("content_type", ["application/sdp", "application/json", "text/plain"])
def test_a_patch_of_another_type(content_type: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        sent = patch_headers(headers["ETag"], content_type)
        await error_of(await client.patch(headers["Location"], data=FRAGMENT, headers=sent), 415)

    check(test)


@pytest.mark.parametrize("text", ["{}", "v", "a=x\x00", "a=caf\u00e9", "A=x", "a=" + "x" * 1024, "a=x\r\n" * 257])
def test_a_malformed_fragment(text: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        sent = patch_headers(headers["ETag"])
        await error_of(await client.patch(headers["Location"], data=text.encode(), headers=sent), 400)
        assert not calls.candidates

    check(test)


def test_a_fragment_that_is_too_long() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        sent = patch_headers(headers["ETag"])
        await error_of(await client.patch(headers["Location"], data=b"a=x\r\n" * 20_000, headers=sent), 413)
        many = f"a={CANDIDATE}\r\n" * 65
        await error_of(await client.patch(headers["Location"], data=many, headers=sent), 400)

    check(test)


@pytest.mark.parametrize("path", ["/whip/unheard-of", "/whip/%2E%2E%2Fx", "/whip/a%00", "/whip/" + "x" * 65])
@pytest.mark.parametrize("method", ["PATCH", "DELETE", "GET"])
def test_a_session_that_is_not_there(method: str, path: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.request(method, path, data=FRAGMENT, headers=patch_headers("*"))
        await error_of(response, 404)

    check(test)


def test_a_session_that_ended_by_itself() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = await created(client)
        calls.open.clear()
        sent = patch_headers(headers["ETag"])
        await error_of(await client.patch(headers["Location"], data=FRAGMENT, headers=sent), 404)
        await error_of(await client.get(headers["Location"]), 404)

    check(test)


# The end


@pytest.mark.parametrize("if_match", [None, '"wrong"'])
def test_delete_ends_the_call_whatever_tag_it_brings(if_match: str | None) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        location = (await created(client))["Location"]
        response = await client.delete(location, headers={} if if_match is None else {"If-Match": if_match})
        assert response.status == 200
        assert not calls.open
        await error_of(await client.delete(location), 404)
        await error_of(await client.get(location), 404)

    check(test)


def test_what_is_kept_of_sessions_is_bounded() -> None:
    async def main() -> None:
        app = web.Application(middlewares=[answer_errors])
        calls = FakeCalls()
        app[CALLS] = calls
        app[OFFER_BUCKETS] = TokenBuckets(RateLimit())
        whip = Whip(IceServers(), lambda: NOON_S, max_resources=2)
        whip.add_routes(app.router)
        async with TestClient(TestServer(app)) as client:
            locations = [(await created(client))["Location"] for _ in range(3)]
            assert [(await client.get(url)).status for url in locations] == [404, 204, 204]
            assert (await client.delete(locations[0])).status == 200, "ending a call works whatever its age"

    asyncio.run(main())


# WHEP


def test_listening_to_a_call() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        call_id = (await created(client))["Location"].rpartition("/")[2]
        headers = await created(client, f"/whep?session={call_id}")
        assert headers["Location"] == "/whep/call-2"
        assert calls.offers[1] == Offer(OFFER, "127.0.0.1", {}, listen_to=call_id)
        sent = patch_headers(headers["ETag"])
        assert (await client.patch(headers["Location"], data=FRAGMENT, headers=sent)).status == 204
        assert (await client.delete(headers["Location"])).status == 200
        assert calls.open == {call_id}

    check(test)


@pytest.mark.parametrize("query", ["", "?session=", "?session=..%2Fx", "?session=" + "x" * 65])
def test_listening_to_nobody(query: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        error = await error_of(await client.post(f"/whep{query}", data=OFFER, headers=SDP), 400)
        assert error["param"] == "session"
        assert not calls.offers

    check(test)


# Fragments


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("", ()),
        (
            "a=candidate:1 1 udp 1 192.0.2.1 1 typ host\n",
            (Candidate("candidate:1 1 udp 1 192.0.2.1 1 typ host", None, 0),),
        ),
        ("a=end-of-candidates", (Candidate("", None, 0),)),
        (
            "m=audio 9 X 1\r\na=mid:a\r\na=candidate:1\r\nm=video 9 X 1\r\na=mid:v\r\na=candidate:2\r\n",
            (Candidate("candidate:1", "a", None), Candidate("candidate:2", "v", None)),
        ),
    ],
)
def test_candidates_belong_to_their_section(text: str, candidates: tuple[Candidate, ...]) -> None:
    assert parse_sdpfrag(text).candidates == candidates


def test_credentials_are_read_wherever_they_stand() -> None:
    assert parse_sdpfrag(FRAGMENT).credentials == IceCredentials("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1")
    assert parse_sdpfrag("a=mid:0").credentials == IceCredentials(None, None)


LINES = st.sampled_from([*FRAGMENT.split("\r\n"), "a=", "a=mid:", "m=", "x=1"]) | st.text(max_size=20)


@settings(deadline=None)
@given(st.lists(LINES).map("\r\n".join) | st.text())
def test_a_fragment_is_read_or_refused(text: str) -> None:
    try:
        fragment = parse_sdpfrag(text)
    except ProtocolError:
        return
    lines: list[Any] = [candidate.line for candidate in fragment.candidates]
    assert all(line == "" or line.startswith("candidate:") for line in lines)
