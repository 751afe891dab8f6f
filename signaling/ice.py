"""ICE servers: read from configuration, given time-limited TURN credentials, and written in each peer's form.

Nothing here reads a clock: the time of day is an argument (``now_s``, seconds since the epoch).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import StringConstraints, ValidationError

from signaling.schema import Wire, explain

MAX_SERVERS = 16
TURN_TTL_S = 3600

_URL = re.compile(
    r"(?P<scheme>stuns?|turns?):(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
    r"(?::(?P<port>\d{1,5}))?(?P<query>\?transport=(?:udp|tcp))?",
    re.ASCII,
)
"""RFC 7064 and RFC 7065; no user part, no path."""

Printable = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,512}$")]
"""What may stand in a quoted string of a header."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """One STUN or TURN server under one or more URLs; without credentials, a TURN server gets time-limited ones."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    @property
    def is_turn(self) -> bool:
        """Whether it relays."""
        return self.urls[0].startswith("turn")


@dataclass(frozen=True, slots=True)
class IceServers:
    """The configured servers and the secret that is shared with those that relay."""

    servers: tuple[IceServer, ...] = ()
    turn_secret: str = field(default="", repr=False)
    turn_ttl_s: int = TURN_TTL_S

    def issue(self, now_s: float, user_id: str) -> tuple[IceServer, ...]:
        """Return the servers as ``user_id`` may use them from now on, for ``turn_ttl_s``."""
        username, credential = turn_credentials(self.turn_secret, now_s, user_id, self.turn_ttl_s)
        return tuple(
            replace(server, username=username, credential=credential)
            if self.turn_secret and server.is_turn and server.username is None
            else server
            for server in self.servers
        )


def turn_credentials(secret: str, now_s: float, user_id: str, ttl_s: int) -> tuple[str, str]:
    """Return a username and password good for ``ttl_s`` (coturn's ``use-auth-secret``; the TURN REST API draft).

    The username is ``expiry:user_id``, the password base64 of its HMAC-SHA1 under the shared secret.
    """
    username = f"{int(now_s) + ttl_s}:{user_id}"
    digest = hmac.digest(secret.encode(), username.encode(), hashlib.sha1)
    return username, base64.b64encode(digest).decode()


def browser_form(servers: Sequence[IceServer]) -> dict[str, Any]:
    """Return an RTCConfiguration's ``iceServers``, as ``/start`` answers."""
    return {"iceServers": [_rtc_ice_server(server) for server in servers]}


def _rtc_ice_server(server: IceServer) -> dict[str, Any]:
    entry: dict[str, Any] = {"urls": list(server.urls)}
    if server.username is not None:
        entry |= {"username": server.username, "credential": server.credential}
    return entry


def link_headers(servers: Sequence[IceServer]) -> list[str]:
    """Return a ``Link`` field value for each URL (RFC 9725 section 4.6)."""
    return [f'<{url}>; rel="ice-server"{_link_credentials(server)}' for server in servers for url in server.urls]


def _link_credentials(server: IceServer) -> str:
    if server.username is None or server.credential is None:
        return ""
    username, credential = _quoted(server.username), _quoted(server.credential)
    return f'; username={username}; credential={credential}; credential-type="password"'


def _quoted(text: str) -> str:
    """Write a quoted-string (RFC 9110 section 5.6.4)."""
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'


def tuples(servers: Sequence[IceServer]) -> list[tuple[str, str | None, str | None]]:
    """Return ``(url, username, credential)`` for each URL, for the server's own connections."""
    return [(url, server.username, server.credential) for server in servers for url in server.urls]


class _Entry(Wire):
    """An RTCIceServer as somebody wrote it."""

    urls: str | list[str]
    username: Printable | None = None
    credential: Printable | None = None


def parse_ice_servers(text: str) -> tuple[IceServer, ...]:
    """Read ICE servers: URLs separated by commas, or JSON, a list of RTCIceServer. Empty text: none.

    Raises ValueError that names the entry at fault, and never repeats a credential.
    """
    entries = _read_entries(text.strip())
    if len(entries) > MAX_SERVERS:
        raise ValueError(f"{len(entries)} ICE servers: at most {MAX_SERVERS} are of use")
    return tuple(_server(number, entry) for number, entry in enumerate(entries, start=1))


def _read_entries(text: str) -> list[Any]:
    if not text.startswith(("[", "{")):
        return [{"urls": url.strip()} for url in text.split(",") if url.strip()]
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("ICE servers: not JSON; write a list of {urls, username, credential}, or URLs") from None
    return entries if isinstance(entries, list) else [entries]


def _server(number: int, raw: Any) -> IceServer:
    try:
        entry = _Entry.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"ICE server {number}: {explain(error)}") from None
    urls = (entry.urls,) if isinstance(entry.urls, str) else tuple(entry.urls)
    if not urls:
        raise ValueError(f"ICE server {number}: urls is empty")
    for url in urls:
        _check_url(number, url)
    if len({url.startswith("turn") for url in urls}) > 1:
        raise ValueError(f"ICE server {number}: stun and turn URLs together; make them two entries")
    if (entry.username is None) != (entry.credential is None):
        raise ValueError(f"ICE server {number} ({urls[0]}): username and credential go together")
    return IceServer(urls, entry.username, entry.credential)


def _check_url(number: int, url: str) -> None:
    match = _URL.fullmatch(url)
    if match is None or not _is_host(match["host"]) or not 0 < int(match["port"] or 1) <= 65535:
        shown = url.rpartition("@")[2][:100]  # what stands before an @ may be a password
        raise ValueError(
            f"ICE server {number}: {shown!r} is no URL like stun:host:3478 or turn:host:3478?transport=udp"
        )
    if match["query"] and not match["scheme"].startswith("turn"):
        raise ValueError(f"ICE server {number}: {url!r}: only turn: and turns: URLs choose a transport")


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return all(label and label[0] != "-" != label[-1] for label in host.removesuffix(".").split("."))
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True
