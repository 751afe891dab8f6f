"""Whose pages may talk to the server: Origin and Host checks, and the CORS answers for those that may.

A browser lets any page send requests anywhere; what keeps a foreign page out of a server on this machine is that it
cannot hide its Origin. A page that rebinds its own name to 127.0.0.1 looks like ours by Origin; its Host gives it away.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

ANY = "*"
DEFAULT_PORTS = {"http": 80, "https": 443}
REQUEST_HEADERS = "Authorization, Content-Type, If-Match"
EXPOSED_HEADERS = "Location, ETag, Link, Accept-Patch, Retry-After, WWW-Authenticate"
PREFLIGHT_TTL_S = 600

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host (lower case, IPv6 in brackets) and port, the default one filled in."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin | None:
    """Read an Origin header; None for ``null`` and for anything else that names no host."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return None
    scheme, host, port = match.groups()
    return Origin(scheme, host, int(port) if port else DEFAULT_PORTS[scheme])


class Origins:
    """The foreign origins that are let in, and the names under which this server is known."""

    def __init__(self, allowed: Sequence[str], bound_to: str) -> None:
        """``allowed``: origins as browsers write them, or ``*``. Raises ValueError, naming one that is none."""
        self._any = ANY in allowed
        self._allowed = {_require_origin(text) for text in allowed if text != ANY}
        self._local_only = is_loopback(bound_to)

    def admits_host(self, request: web.Request) -> bool:
        """Tell whether Host names this server. Only a server bound to loopback knows all of its names."""
        if not self._local_only:
            return True
        host = host_of(request)
        return is_loopback(host) or host in {o.host for o in self._allowed}

    def admits(self, request: web.Request) -> bool:
        """Tell whether the request comes from no page at all, from our own, or from one that is let in."""
        text = request.headers.get(hdrs.ORIGIN)
        if text is None or self._any:
            return True
        origin = parse_origin(text)
        return origin is not None and (origin in self._allowed or is_same_origin(origin, request))

    async def add_cors_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let an admitted page read the response. An ``on_response_prepare`` signal, so that errors have it too."""
        text = request.headers.get(hdrs.ORIGIN)
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if text is None or not self.admits(request):
            return
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = text
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS


def host_of(request: web.Request) -> str:
    """Return the name the server was asked for, without its port; empty where Host is none."""
    match = _HOST.fullmatch(request.headers.get(hdrs.HOST, "").lower())
    return match[1] if match else ""


def is_preflight(request: web.Request) -> bool:
    """Tell whether a browser asks on behalf of a page (Fetch standard, CORS preflight)."""
    return request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def preflight_headers(methods: Sequence[str]) -> dict[str, str]:
    """Return what a page may send to a resource with these methods."""
    return {
        str(hdrs.ACCESS_CONTROL_ALLOW_METHODS): ", ".join(methods),
        str(hdrs.ACCESS_CONTROL_ALLOW_HEADERS): REQUEST_HEADERS,
        str(hdrs.ACCESS_CONTROL_MAX_AGE): str(PREFLIGHT_TTL_S),
    }


def is_same_origin(origin: Origin, request: web.Request) -> bool:
    """Tell whether ``origin`` is the host asked for. The scheme may differ: a proxy may end TLS before us."""
    match = _HOST.fullmatch(request.headers.get(hdrs.HOST, "").lower())
    if match is None:
        return False
    return (match[1], int(match[2]) if match[2] else DEFAULT_PORTS[origin.scheme]) == (origin.host, origin.port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can be meant by ``host`` (RFC 6761 section 6.3 for the names)."""
    name = host.lower().removesuffix(".").strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _require_origin(text: str) -> Origin:
    origin = parse_origin(text)
    if origin is None:
        raise ValueError(f"{text!r} is no origin: write scheme, host and port alone, such as https://example.org")
    return origin
