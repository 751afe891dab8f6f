"""Host names, their addresses, and which of these are on the public internet, where a stranger may send a server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.resolver

from .errors import EngineError

LOOK_UP_S: Final = 5.0

_NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network: Linux takes 0.0.0.0 for itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 tells Alibaba Cloud's machines their secrets
        "127.0.0.0/8",
        "168.63.129.16/32",  # global, and yet each Azure machine's own host
        "169.254.0.0/16",  # link-local: 169.254.169.254 tells cloud machines their secrets
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocols: 192.0.0.192 is Oracle Cloud's 169.254.169.254
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
"""https://www.iana.org/assignments/iana-ipv4-special-registry, and what is no better. Written out, because what
``ipaddress`` calls global differs from one Python to the next, and has multicast in it."""

_PUBLIC_6 = IPv6Network("2000::/3")
"""All that is assigned as global unicast, https://www.iana.org/assignments/ipv6-address-space."""
_NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocols, Teredo among them, which carries an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4, which carries another
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: how hosts without IPv4 reach an IPv4 address, its last four bytes."""


async def look_up(host: str, resolver: dns.asyncresolver.Resolver | None = None) -> Sequence[str]:
    """Return a host's addresses as the name server tells them: none where there is no such host.

    The DNS alone is asked, by the full name: neither /etc/hosts nor the search list, which name what is near. Raises
    EngineError where this machine has no name server. Canceling is safe.
    """
    try:
        asked = resolver or _resolver()
        found = await asked.resolve_name(host, search=False, lifetime=LOOK_UP_S)
    except dns.resolver.NoResolverConfiguration as error:
        raise EngineError("this machine has no name server in /etc/resolv.conf") from error
    except dns.exception.DNSException:
        return ()
    return tuple(found.addresses())


@cache
def _resolver() -> dns.asyncresolver.Resolver:
    return dns.asyncresolver.Resolver()


def is_address(host: str) -> bool:
    """Tell whether a host is given by its address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Tell whether an address is a unicast address of the public internet. Raises ValueError for what is none."""
    ip = ip_address(address)
    return _is_public_6(ip) if isinstance(ip, IPv6Address) else _is_public_4(ip)


def _is_public_4(ip: IPv4Address) -> bool:
    return ip.is_global and not any(ip in network for network in _NOT_PUBLIC_4)


def _is_public_6(ip: IPv6Address) -> bool:
    if ip.scope_id is not None:  # fe80::1%eth0
        return False
    if ip.ipv4_mapped is not None:
        return _is_public_4(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public_4(IPv4Address(int(ip) & 0xFFFF_FFFF))
    return ip in _PUBLIC_6 and ip.is_global and not any(ip in network for network in _NOT_PUBLIC_6)
