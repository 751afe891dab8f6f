"""How often one address may begin something that costs: a bounded table of token buckets."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

MAX_ADDRESSES = 4096


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``burst`` at once, then ``per_minute``; 0 a minute switches it off.

    Loopback is exempt unless ``loopback_too``: behind a proxy on this machine everybody has that address, and the
    proxy is where to limit.
    """

    burst: int = 60
    per_minute: float = 120.0
    loopback_too: bool = False


class TokenBucket:
    """``burst`` tokens at once, then ``per_s`` more each second. Time is an argument, in seconds."""

    __slots__ = ("_burst", "_filled_at_s", "_per_s", "_tokens")

    def __init__(self, burst: float, per_s: float, now_s: float) -> None:
        self._burst = self._tokens = burst
        self._per_s = per_s
        self._filled_at_s = now_s

    def take(self, now_s: float, tokens: float = 1.0) -> float:
        """Take so many tokens and return 0; where there are fewer take none, and return the seconds to wait."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_at_s) * self._per_s)
        self._filled_at_s = now_s
        if self._tokens < tokens:
            return (tokens - self._tokens) / self._per_s
        self._tokens -= tokens
        return 0.0


class TokenBuckets:
    """Count what each address takes. The least recently seen address is forgotten first, as if it had been idle."""

    def __init__(
        self,
        limit: RateLimit,
        monotonic_s: Callable[[], float] = time.monotonic,
        max_addresses: int = MAX_ADDRESSES,
    ) -> None:
        """``monotonic_s`` tells seconds that never run backwards."""
        self._limit = limit
        self._monotonic_s = monotonic_s
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._buckets)

    def take(self, remote: str) -> float:
        """Take one token for ``remote``; return 0, or the seconds to wait where there is none."""
        network = network_of(remote)
        per_s = self._limit.per_minute / 60
        if per_s <= 0 or (not self._limit.loopback_too and is_loopback_address(network)):
            return 0.0
        now_s = self._monotonic_s()
        bucket = self._buckets.setdefault(network, TokenBucket(self._limit.burst, per_s, now_s))
        self._buckets.move_to_end(network)
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        return bucket.take(now_s)

    def require(self, request: web.Request) -> None:
        """Take one token for the request's address. Raises HTTPTooManyRequests with Retry-After."""
        wait_s = self.take(request.remote or "")
        if wait_s > 0:
            after = str(math.ceil(wait_s))
            raise web.HTTPTooManyRequests(reason=f"too many calls: wait {after} s", headers={hdrs.RETRY_AFTER: after})


def network_of(remote: str) -> str:
    """Return whom an address stands for: itself, or for IPv6 its /64, all of which one host may use."""
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address) if address.is_loopback else str(ipaddress.ip_network((address, 64), strict=False))


def is_loopback_address(text: str) -> bool:
    """Tell whether ``text`` is an address of this machine itself."""
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
