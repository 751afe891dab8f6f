"""Keys, origins, hosts and CORS, over real HTTP, for every route there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.errors import VocalError
from signaling.auth import Access, Keys, check_exposure
from signaling.origins import Origin, Origins, is_loopback, parse_origin
from signaling.routes import SignalingConfig
from tests.signaling_server import OFFER, Client, FakeCalls, check, error_of, offer_body

FRIEND = "https://app.example.org"
KEYS = ("first-key", "second-key")
LOCKED = SignalingConfig(access=Access("0.0.0.0", KEYS, (FRIEND,)))
OPEN = SignalingConfig(access=Access("127.0.0.1", (), (FRIEND, "http://localhost:5173")))

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/start", {"json": {}}),
    ("POST", "/api/offer", {"json": offer_body()}),
    ("PATCH", "/api/offer", {"json": {"pc_id": "call-1", "candidates": []}}),
    ("DELETE", "/api/offer/call-1", {}),
    ("POST", "/sessions/abc/api/offer", {"json": offer_body()}),
    ("PATCH", "/sessions/abc/api/offer", {"json": {"pc_id": "call-1", "candidates": []}}),
    ("DELETE", "/sessions/abc/api/offer/call-1", {}),
    ("POST", "/whip", {"data": OFFER, "headers": SDP}),
    ("GET", "/whip", {}),
    ("PATCH", "/whip/call-1", {"data": "", "headers": FRAGMENT}),
    ("DELETE", "/whip/call-1", {}),
    ("GET", "/whip/call-1", {}),
    ("POST", "/whep?session=call-1", {"data": OFFER, "headers": SDP}),
    ("DELETE", "/whep/call-1", {}),
    ("GET", "/private", {}),
    ("POST", "/", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/static", {}),
]
NAMES = [f"{method} {path}" for method, path, _ in ROUTES]


async def ask(client: Client, route: tuple[str, str, dict[str, Any]], headers: Mapping[str, str]) -> Any:
    """Send a route's request with more headers."""
    method, path, options = route
    return await client.request(method, path, **options | {"headers": {**options.get("headers", {}), **headers}})


# Keys


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, "Bearer"),
        ("", "Bearer"),
        ("Bearer", "Bearer"),
        ("Bearer   ", "Bearer"),
        ("Basic Zmlyc3Qta2V5", "Bearer"),
        ("first-key", "Bearer"),
        ("Bearer wrong", 'Bearer error="invalid_token"'),
        ("Bearer first-ke", 'Bearer error="invalid_token"'),
        ("Bearer first-key,second-key", 'Bearer error="invalid_token"'),
        ("Bearer caf\u00e9", 'Bearer error="invalid_token"'),
    ],
)
def test_without_a_key_nothing_happens(
    route: tuple[str, str, dict[str, Any]], authorization: str | None, challenge: str
) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        calls.open.add("call-1")
        headers = {} if authorization is None else {"Authorization": authorization}
        response = await ask(client, route, headers)
        error = await error_of(response, 401)
        assert error["type"] == "authentication_error"
        assert response.headers["WWW-Authenticate"] == challenge
        assert not calls.offers
        assert calls.open

    check(test, LOCKED)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_any_of_the_keys_opens(key: str, scheme: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Authorization": f"{scheme} {key}"}
        for route in ROUTES:
            assert (await ask(client, route, headers)).status != 401

    check(test, LOCKED)


def test_a_get_may_carry_its_key_in_the_address() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        assert (await client.get("/private?access_token=first-key")).status == 200
        await error_of(await client.get("/private?access_token=wrong"), 401)
        await error_of(await client.post("/start?access_token=first-key", json={}), 401)

    check(test, LOCKED)


def test_the_page_and_its_files_need_no_key() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        for path in ("/", "/static/app.js"):
            assert (await client.get(path)).status == 200
            assert (await client.head(path)).status == 200
        assert (await client.get("/static/%2E%2E/private")).status in (401, 404)

    check(test, LOCKED)


def test_on_loopback_without_keys_it_is_open() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        assert (await client.post("/start", json={})).status == 200
        assert (await client.get("/private")).status == 200

    check(test)


def test_on_loopback_keys_count_too() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        await error_of(await client.post("/start", json={}), 401)

    check(test, SignalingConfig(access=Access("127.0.0.1", KEYS)))


def test_empty_keys_open_nothing() -> None:
    assert not Keys(("", ""))
    assert not Keys(("a", "")).accept("")


def test_keys_are_in_no_repr() -> None:
    assert "first-key" not in repr(LOCKED)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST", "a.localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    check_exposure(host, (), insecure=False)
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "vocal.example.org", "localhost.example.org"])
def test_anything_else_needs_a_key_or_the_word(host: str) -> None:
    with pytest.raises(VocalError) as caught:
        check_exposure(host, ("",), insecure=False)
    assert "VOCAL_API_KEYS" in str(caught.value)
    assert "--insecure" in str(caught.value)
    assert "\n" not in str(caught.value)
    check_exposure(host, ("k",), insecure=False)
    check_exposure(host, (), insecure=True)


# Origins

FOREIGN = [
    "http://evil.example",
    "https://app.example.org.evil.example",
    "http://app.example.org",
    "https://app.example.org:8443",
    "null",
    "",
    "http://localhost:1",
    "file://",
    "https://app.example.org/",
    "https://user@app.example.org",
]


@pytest.mark.parametrize("config", [OPEN, LOCKED], ids=["open", "locked"])
@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_pages_are_refused_everywhere(origin: str, config: SignalingConfig) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        calls.open.add("call-1")
        for route in ROUTES:
            response = await ask(client, route, {"Origin": origin, "Authorization": "Bearer first-key"})
            error = await error_of(response, 403)
            assert error["type"] == "permission_error"
            assert "Access-Control-Allow-Origin" not in response.headers
        assert not calls.offers
        assert calls.open

    check(test, config)


@pytest.mark.parametrize("origin", [FRIEND, "HTTPS://APP.example.org:443", "http://localhost:5173"])
def test_pages_that_are_let_in_can_read_the_answer(origin: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        for response in (
            await client.post("/whip", data=OFFER, headers={**SDP, "Origin": origin}),
            await client.post("/api/offer", json={}, headers={"Origin": origin}),
            await client.get("/nowhere", headers={"Origin": origin}),
        ):
            assert response.headers["Access-Control-Allow-Origin"] == origin
            exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"Location", "ETag", "Link"} <= set(exposed)
            assert "Origin" in response.headers.getall("Vary")

    check(test, OPEN)


def test_our_own_page_may_call() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        host = f"{client.host}:{client.port}"
        for scheme in ("http", "https"):
            response = await client.post("/start", json={}, headers={"Origin": f"{scheme}://{host}"})
            assert response.status == 200
        assert (await client.post("/start", json={}, headers={"Origin": f"http://{client.host}"})).status == 403

    check(test)


def test_our_own_page_behind_a_proxy_that_ends_tls() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {
            "Host": "voice.example.org",
            "Origin": "https://voice.example.org",
            "Authorization": "Bearer first-key",
        }
        assert (await client.post("/start", json={}, headers=headers)).status == 200

    check(test, LOCKED)


def test_every_origin_if_so_wished() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/start", json={}, headers={"Origin": "null"})
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "null"

    check(test, SignalingConfig(access=Access(origins=("*",))))


def test_no_cookie_is_ever_asked_for() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/start", json={}, headers={"Origin": FRIEND})
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "Set-Cookie" not in response.headers

    check(test, OPEN)


@pytest.mark.parametrize(
    "text", ["evil", "https://", "https://a.example/path", "ftp://a.example", "https://*.a.example"]
)
def test_an_origin_that_is_none_is_no_configuration(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        Origins((FRIEND, text), "127.0.0.1")
    assert repr(text) in str(caught.value)


def test_default_ports_are_filled_in() -> None:
    assert parse_origin("https://A.example") == Origin("https", "a.example", 443)
    assert parse_origin("http://[::1]:8000") == Origin("http", "[::1]", 8000)


# Host: DNS rebinding


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil", "a b"]
)
def test_a_rebound_name_is_refused(host: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
            await error_of(await client.post("/start", json={}, headers=headers), 403)
            await error_of(await client.get("/", headers=headers), 403)

    check(test)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "127.0.0.1:1", "[::1]:8000", "a.localhost", "app.example.org"]
)
def test_our_own_names_are_ours(host: str) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        assert (await client.post("/start", json={}, headers={"Host": host})).status == 200

    check(test, OPEN)


def test_a_server_that_others_reach_does_not_know_its_names() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Host": "voice.example.org", "Authorization": "Bearer first-key"}
        assert (await client.post("/start", json={}, headers=headers)).status == 200

    check(test, LOCKED)


# Preflights


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/start", {"POST"}),
        ("/api/offer", {"POST", "PATCH"}),
        ("/sessions/abc/api/offer", {"POST", "PATCH"}),
        ("/api/offer/call-1", {"DELETE"}),
        ("/whip", {"POST"}),
        ("/whip/call-1", {"PATCH", "DELETE"}),
        ("/whep", {"POST"}),
        ("/private", {"GET"}),
    ],
)
def test_a_preflight_needs_no_key(path: str, methods: set[str]) -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Origin": FRIEND, "Access-Control-Request-Method": min(methods)}
        response = await client.options(path, headers=headers)
        assert response.status in (200, 204)
        assert response.headers["Access-Control-Allow-Origin"] == FRIEND
        assert methods <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
        allowed = response.headers["Access-Control-Allow-Headers"].split(", ")
        assert {"Authorization", "Content-Type", "If-Match"} <= set(allowed)
        assert response.headers["Access-Control-Max-Age"]

    check(test, LOCKED)


def test_a_preflight_of_a_foreign_page_is_refused() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        response = await client.options("/start", headers=headers)
        await error_of(response, 403)
        assert "Access-Control-Allow-Origin" not in response.headers

    check(test, LOCKED)


def test_options_that_is_no_preflight_needs_a_key() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        await error_of(await client.options("/whip"), 401)

    check(test, LOCKED)
