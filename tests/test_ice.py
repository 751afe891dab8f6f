"""ICE servers: what may be configured, what a fault says, and the credentials a TURN server checks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.ice import (
    IceServer,
    IceServers,
    browser_form,
    link_headers,
    parse_ice_servers,
    tuples,
    turn_credentials,
)
from signaling.routes import SignalingConfig
from tests.signaling_server import NOON_S, OFFER, Client, FakeCalls, check

STUN = IceServer(("stun:stun.example.org:3478",))
TURN = IceServer(("turn:turn.example.org?transport=udp", "turns:turn.example.org:443?transport=tcp"))
OWN = IceServer(("turn:other.example.org",), "ann", 'p"a\\ss')


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        (" , ,", ()),
        ("stun:stun.example.org:3478", (STUN,)),
        (
            " stun:a.example:1 ,turn:b.example:65535?transport=tcp",
            (IceServer(("stun:a.example:1",)), IceServer(("turn:b.example:65535?transport=tcp",))),
        ),
        (
            "stun:192.0.2.1, stuns:[2001:db8::1]:443",
            (IceServer(("stun:192.0.2.1",)), IceServer(("stuns:[2001:db8::1]:443",))),
        ),
        ("[]", ()),
        ('[{"urls": "stun:stun.example.org:3478"}]', (STUN,)),
        ('{"urls": ["stun:stun.example.org:3478"]}', (STUN,)),
        (json.dumps([{"urls": list(TURN.urls)}]), (TURN,)),
        (json.dumps([{"urls": OWN.urls[0], "username": "ann", "credential": 'p"a\\ss'}]), (OWN,)),
        ('[{"urls": "stun:a.example", "credentialType": "password"}]', (IceServer(("stun:a.example",)),)),
    ],
)
def test_servers_are_read(text: str, servers: tuple[IceServer, ...]) -> None:
    assert parse_ice_servers(text) == servers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stun:a.example, http://b.example", "ICE server 2: 'http://b.example'"),
        ("stun.example.org", "ICE server 1: 'stun.example.org'"),
        ("stun:", "ICE server 1"),
        ("stun://a.example", "ICE server 1"),
        ("stun:a.example:0", "ICE server 1"),
        ("stun:a.example:65536", "ICE server 1"),
        ("stun:a..example", "ICE server 1"),
        ("stun:-a.example", "ICE server 1"),
        ("stun:[2001:db8::g]", "ICE server 1"),
        ("stun:[1.2.3.4]", "ICE server 1"),
        ("turn:a.example?transport=sctp", "ICE server 1"),
        ("stun:a.example?transport=udp", "only turn: and turns:"),
        ("stun:a.example\nX-Header: 1", "ICE server 1"),
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[5]", "ICE server 1"),
        ('[{"urls": "stun:a.example"}, {"url": "stun:b.example"}]', "ICE server 2: urls"),
        ('[{"urls": []}]', "ICE server 1: urls is empty"),
        ('[{"urls": ["stun:a.example", "turn:a.example"]}]', "make them two entries"),
        ('[{"urls": "turn:a.example", "username": "ann"}]', "username and credential go together"),
        ('[{"urls": "turn:a.example", "username": "a\\r\\nb", "credential": "x"}]', "ICE server 1: username"),
        (",".join(["stun:a.example"] * 17), "17 ICE servers"),
    ],
)
def test_a_fault_names_its_entry(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_ice_servers(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "turn:ann:hunter2@a.example",
        '[{"urls": "turn:a.example", "username": 1, "credential": "hunter2"}]',
        '[{"urls": "turn:a.example", "credential": "hunter2"}]',
        '[{"urls": "turn:a.example", "username": "ann", "credential": "hunter2\\u0000"}]',
    ],
)
def test_a_fault_never_tells_a_password(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_ice_servers(text)
    assert "hunter2" not in str(caught.value)


def test_a_password_is_in_no_repr() -> None:
    config = IceServers((OWN,), turn_secret="north")
    assert "north" not in repr(config)
    assert OWN.credential is not None
    assert OWN.credential not in repr(config)


@given(
    st.text()
    | st.lists(st.dictionaries(st.sampled_from(["urls", "username", "credential"]), st.text())).map(json.dumps)
)
def test_anything_else_is_a_value_error(text: str) -> None:
    try:
        servers = parse_ice_servers(text)
    except ValueError:
        return
    assert all(value.isprintable() and value.isascii() for value in link_headers(servers))


# Credentials


def test_credentials_are_coturns() -> None:
    """As coturn computes them: ``openssl dgst -sha1 -hmac SECRET -binary | base64`` over ``expiry:user``."""
    username, password = turn_credentials("north", 1_433_895_918.9, "ninefingers", 0)
    assert username == "1433895918:ninefingers"
    assert password == "jy8hTxmOO7UtEKXqSkSlvakPVYA="


def test_only_servers_that_relay_and_have_no_credentials_get_some() -> None:
    stun, turn, own = IceServers((STUN, TURN, OWN), "north", 3600).issue(1000.7, "ann")
    assert (stun, own) == (STUN, OWN)
    assert turn.urls == TURN.urls
    assert turn.username == "4600:ann"
    assert turn.credential == turn_credentials("north", 1000, "ann", 3600)[1]


def test_without_a_secret_nothing_is_added() -> None:
    assert IceServers((STUN, TURN)).issue(1000, "ann") == (STUN, TURN)


# Forms


def test_a_browser_gets_an_rtc_configuration() -> None:
    assert browser_form((STUN, OWN)) == {
        "iceServers": [
            {"urls": ["stun:stun.example.org:3478"]},
            {"urls": ["turn:other.example.org"], "username": "ann", "credential": 'p"a\\ss'},
        ]
    }


def test_whip_gets_a_link_for_each_url() -> None:
    (turn,) = IceServers((TURN,), "north").issue(0, "x")
    assert link_headers((STUN, turn, OWN)) == [
        '<stun:stun.example.org:3478>; rel="ice-server"',
        *(
            f'<{url}>; rel="ice-server"; username="3600:x"; credential="{turn.credential}"; credential-type="password"'
            for url in TURN.urls
        ),
        '<turn:other.example.org>; rel="ice-server"; username="ann"; credential="p\\"a\\\\ss"'
        '; credential-type="password"',
    ]


def test_the_server_itself_gets_tuples() -> None:
    assert tuples((TURN, OWN)) == [
        (TURN.urls[0], None, None),
        (TURN.urls[1], None, None),
        ("turn:other.example.org", "ann", 'p"a\\ss'),
    ]


# Over HTTP

CONFIG = SignalingConfig(ice=IceServers((STUN, TURN), "north", 600))


def test_start_hands_out_credentials_of_its_session() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/start", json={"enableDefaultIceServers": True})
        body: dict[str, Any] = await response.json()
        assert response.headers["Cache-Control"] == "no-store"
        stun, turn = body["iceConfig"]["iceServers"]
        assert stun == {"urls": list(STUN.urls)}
        assert turn["urls"] == list(TURN.urls)
        assert turn["username"] == f"{int(NOON_S) + 600}:{body['sessionId']}"
        assert turn["credential"] == turn_credentials("north", NOON_S, body["sessionId"], 600)[1]

    check(test, CONFIG)


def test_whip_links_every_server_in_its_201() -> None:
    async def test(client: Client, calls: FakeCalls) -> None:
        response = await client.post("/whip", data=OFFER, headers={"Content-Type": "application/sdp"})
        assert response.status == 201
        links = response.headers.getall("Link")
        assert links == link_headers(CONFIG.ice.issue(NOON_S, "call-1"))
        assert len(links) == 3
        assert f'username="{int(NOON_S) + 600}:call-1"' in links[1]

    check(test, CONFIG)
