"""Fetch what a stranger's URL names, from the public internet and nowhere else.

A host name is looked up once; every address it has must be public, and the connection goes to those addresses: a name
that changes its mind cannot lead elsewhere. Every redirect is a new URL, and passes the same checks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from .addresses import is_address, is_public, look_up
from .errors import ProtocolError

URL_MAX_CHARS: Final = 2_048
PIECE_BYTES: Final = 64 * 1024
REDIRECTS: Final = (301, 302, 303, 307, 308)
HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "vocal-node"}
"""Nothing compressed: what arrives is as long as it is."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may cost. ``total_s`` is for all of it, ``silence_s`` for the server to go on."""

    size_bytes: int = 10 * 1024 * 1024
    total_s: float = 10.0
    silence_s: float = 5.0
    redirects: int = 3
    ports: frozenset[int] = frozenset({80, 443, 8443})


@dataclass(frozen=True, slots=True)
class Network:
    """How names become addresses, which addresses are gone to, and whose certificates are trusted."""

    look_up: Callable[[str], Awaitable[Sequence[str]]] = look_up
    admits: Callable[[str], bool] = is_public
    tls: ssl.SSLContext | bool = True


async def fetch(
    url: str,
    limits: FetchLimits = FetchLimits(),
    *,
    param: str = "voiceSampleUrl",
    allow_http: bool = False,
    network: Network = Network(),
) -> bytes:
    """Return what is at ``url``. Proxies, cookies and credentials of this machine play no part.

    Raises ProtocolError (``param``): 400 for a URL that is none or not of the kind that is fetched, 403 where it or a
    redirect leads to no public address (never saying where), 413 for too much, 422 for whatever else goes wrong on the
    way. Canceling is safe; nothing stays open.
    """
    errand = _Errand(limits, param, ("https", "http") if allow_http else ("https",), network)
    try:
        async with asyncio.timeout(limits.total_s):
            return await errand.run(url)
    except TimeoutError:
        raise errand.refusal(f"does not arrive within {limits.total_s:g} s") from None
    except ClientSSLError:
        raise errand.refusal("has no valid certificate: fetching it is not safe") from None
    except (ClientError, OSError):
        raise errand.refusal("cannot be fetched: its server cannot be reached, or breaks off") from None


@dataclass(frozen=True, slots=True)
class _Errand:
    limits: FetchLimits
    param: str
    schemes: tuple[str, ...]
    network: Network

    def refusal(self, why: str, status: int = 422) -> ProtocolError:
        """Say why, without telling more of the network than the other side knows."""
        return ProtocolError(f"{self.param} {why}", param=self.param, status=status)

    async def run(self, url: str) -> bytes:
        """Follow ``url`` to its end."""
        target = self.target(url)
        for _ in range(self.limits.redirects + 1):
            got = await self.get(target)
            if isinstance(got, bytes):
                return got
            target = self.target(got)
        raise self.refusal(f"is redirected more than {self.limits.redirects} times")

    def target(self, url: str) -> URL:
        """Read a URL. Raises ProtocolError for one that is not fetched, whatever its host is."""
        try:
            target = URL(url) if len(url) <= URL_MAX_CHARS else URL()
        except ValueError:
            target = URL()
        if target.scheme not in self.schemes or not target.raw_host:
            raise self.refusal(f"must be a URL that begins with {self.schemes[0]}://, wherever it is redirected", 400)
        if target.raw_user is not None or target.raw_password is not None:
            raise self.refusal("must hold no user name and no password", 400)
        if target.port not in self.limits.ports:
            raise self.refusal(f"must use one of the ports {', '.join(map(str, sorted(self.limits.ports)))}", 400)
        return target

    async def get(self, target: URL) -> bytes | str:
        """Return the body, or where a redirect leads."""
        addresses = await self.addresses(target.raw_host or "")
        async with (
            ClientSession(
                connector=TCPConnector(resolver=_Pinned(addresses), use_dns_cache=False, ssl=self.network.tls),
                timeout=ClientTimeout(total=None, sock_read=self.limits.silence_s),
                cookie_jar=DummyCookieJar(),
                headers=HEADERS,
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.get(target, allow_redirects=False) as response,
        ):
            if response.status in REDIRECTS:
                return self.redirect(target, response)
            return await self.body(response)

    async def addresses(self, host: str) -> Sequence[str]:
        """Return where ``host`` is. Raises ProtocolError unless all of that is public."""
        addresses = [host] if is_address(host) else await self.network.look_up(host)
        if not addresses or not all(map(self.network.admits, addresses)):
            raise self.refusal("leads to a host that has no public address", 403)
        return addresses

    def redirect(self, target: URL, response: ClientResponse) -> str:
        """Return where a redirect leads."""
        try:
            return str(target.join(URL(response.headers["Location"])))
        except (KeyError, ValueError):
            raise self.refusal("is redirected to nowhere") from None

    async def body(self, response: ClientResponse) -> bytes:
        """Read what was asked for, as far as it may go."""
        if response.status != 200:
            raise self.refusal(f"is answered with status {response.status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self.refusal("comes compressed, which was not asked for")
        too_much = self.refusal(f"is too long: at most {self.limits.size_bytes} bytes are fetched", 413)
        if (response.content_length or 0) > self.limits.size_bytes:
            raise too_much
        body = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            body += piece
            if len(body) > self.limits.size_bytes:
                raise too_much
        return bytes(body)


class _Pinned(AbstractResolver):
    """Tell aiohttp the addresses that were checked, whatever it asks for."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return them all."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""
