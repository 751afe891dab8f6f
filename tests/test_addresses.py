"""Which addresses a stranger may send us to."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import addresses
from pipeline.addresses import is_address, is_public, look_up
from pipeline.errors import EngineError


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "9.255.255.255", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1"),
        *("2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808", "::ffff:8.8.8.8"),
    ],
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("169.254.169.254", "168.63.129.16", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1"),
        *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.251", "239.1.1.1"),
        *("240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:169.254.169.254", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1"),
        *("2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
        *("fe80::1%eth0", "2606:4700:4700::1111%eth0", "fec0::1", "ff02::1", "4000::1"),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses())
def test_nothing_that_python_calls_special_is_public(ip: IPv4Address | IPv6Address) -> None:
    if isinstance(ip, IPv6Address) and (int(ip) >> 32 in (0xFFFF, 0x64FF9B << 64)):
        ip = IPv4Address(int(ip) & 0xFFFF_FFFF)  # what is mapped or translated is what counts
    ordinary = ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_link_local)
    assert ordinary or not is_public(str(ip))


@given(st.ip_addresses(v=4))
def test_an_address_in_another_is_as_public_as_it_is_alone(ip: IPv4Address) -> None:
    hidden = int(ip)
    assert is_public(str(IPv6Address(0xFFFF << 32 | hidden))) == is_public(str(ip))
    assert is_public(str(IPv6Address(0x64FF9B << 96 | hidden))) == is_public(str(ip))
    assert not is_public(str(IPv6Address(0x2002 << 112 | hidden << 80)))  # 6to4
    assert not is_public(str(IPv6Address(0x20010000 << 96 | hidden)))  # Teredo
    assert not is_public(str(IPv6Address(hidden)))


def test_an_address_is_one_in_both_families() -> None:
    assert all(map(is_address, ["127.0.0.1", "::1", "fe80::1%eth0"]))


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost", "[::1]", ""])
def test_what_only_some_read_as_an_address_is_a_name(host: str) -> None:
    assert not is_address(host)


# --- names


class NameServer(asyncio.DatagramProtocol):
    """Knows one host, and all that was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.asked.append(question.name.to_text())
        answer = dns.message.make_response(query)
        known = {dns.rdatatype.A: "127.0.0.7", dns.rdatatype.AAAA: "2606:4700::1"}
        if question.name.to_text() == "sample.test.":
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, known[question.rdtype]))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)


def found(*names: str) -> tuple[list[set[str]], list[str]]:
    """Look names up; return what was found for each, and what the server was asked."""
    server = NameServer()

    async def main() -> list[set[str]]:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: server, local_addr=("127.0.0.1", 0)
        )
        try:
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.port = transport.get_extra_info("sockname")[1]
            resolver.nameservers, resolver.search = ["127.0.0.1"], [dns.name.from_text("test.")]
            return [set(await look_up(name, resolver)) for name in names]
        finally:
            transport.close()

    return asyncio.run(main()), server.asked


def test_a_host_has_all_the_addresses_that_the_name_server_tells() -> None:
    assert found("sample.test")[0] == [{"127.0.0.7", "2606:4700::1"}]


@pytest.mark.parametrize("name", ["nobody.test", "sample", "localhost", "2130706433"])
def test_a_host_that_the_name_server_does_not_know_has_none(name: str) -> None:
    addresses, asked = found(name)
    assert addresses == [set()]
    assert set(asked) == {f"{name}."}


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..test"])
def test_what_cannot_be_a_host_is_not_asked_for(name: str) -> None:
    assert found(name) == ([set()], [])


def test_a_machine_without_a_name_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> dns.asyncresolver.Resolver:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(addresses, "_resolver", none)
    with pytest.raises(EngineError, match="name server"):
        asyncio.run(look_up("sample.test"))
