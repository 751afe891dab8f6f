"""Remote ICE candidates (RFC 8839 section 5.1): what may be tried, and for whom."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from pipeline.errors import ProtocolError

MAX_CANDIDATES = 30
"""Per call, offered and trickled together: each makes the server send seven packets wherever it says."""

_LINE = re.compile(
    r"(?:a=)?(?:candidate:)?(?P<foundation>[!-~]{1,32}) (?P<component>\d{1,3}) (?P<transport>[!-~]{1,16}) "
    r"(?P<priority>\d{1,10}) (?P<address>[!-~]{1,255}) (?P<port>\d{1,5}) typ (?P<type>[a-z]{1,16})(?: .*)?",
    re.IGNORECASE | re.ASCII,
)

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Where cloud providers answer questions about the machine, beside link-local 169.254.169.254."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """A UDP candidate that may be tried: an IP address, never a name."""

    foundation: str
    priority: int
    address: str
    port: int
    type: str

    @property
    def line(self) -> str:
        """The value of ``a=candidate:`` without the attribute's name."""
        return f"{self.foundation} 1 udp {self.priority} {self.address} {self.port} typ {self.type}"


def parse_candidate(line: str, remote: str) -> IceCandidate | None:
    """Return the candidate, or None where there is nothing to try.

    None stands for: TCP, RTCP's own component, a name (``.local`` ones hide an address that the peer's checks reveal
    anyway; nothing is ever looked up, so nothing waits), and addresses that ``remote`` has no business to name:
    loopback, link-local, multicast, cloud metadata. Raises ProtocolError where the line is no candidate at all.
    """
    match = _LINE.fullmatch(line.strip())
    if match is None or int(match["priority"]) >= 1 << 32 or int(match["port"]) > 65535:
        raise ProtocolError(
            f"not an ICE candidate: {line[:100]!r}; send 'candidate:<foundation> 1 udp <priority> <address> <port> "
            "typ host' as the browser gives it",
            param="candidate",
        )
    usable = match["transport"].lower() == "udp" and match["component"] == "1" and int(match["port"]) > 0
    kind = match["type"].lower()
    if not usable or kind not in ("host", "srflx", "relay") or not is_reachable(match["address"], remote):
        return None
    address = str(ipaddress.ip_address(match["address"]))
    return IceCandidate(match["foundation"], int(match["priority"]), address, int(match["port"]), kind)


def is_reachable(address: str, remote: str) -> bool:
    """Tell whether a caller at ``remote`` may have packets sent to ``address``. Names may not."""
    if "%" in address:
        return False
    try:
        candidate = ipaddress.ip_address(address)
    except ValueError:
        return False
    return is_loopback(remote) or not any(_is_refused(ip) for ip in _with_embedded(candidate))


def is_loopback(remote: str) -> bool:
    """Tell whether ``remote`` is this machine itself."""
    try:
        return any(ip.is_loopback for ip in _with_embedded(ipaddress.ip_address(remote)))
    except ValueError:
        return False


def _with_embedded(address: IpAddress) -> list[IpAddress]:
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    embedded = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        embedded.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(ip for ip in embedded if ip is not None)]


def _is_refused(address: IpAddress) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.version == 4 and address.is_reserved)
        or address in _METADATA
    )
