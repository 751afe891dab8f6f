"""Remedies for ICE: who may be heard, how long to wait for whom, and what must not outlive a call."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import dns.asyncresolver
import dns.exception
from aioice import ice, stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aiortc import RTCPeerConnection
from aiortc.exceptions import InvalidStateError

from .consent import Consent, hear
from .patching import replace, require_attributes

log = logging.getLogger(__name__)

GATHER_S = 0.5
"""How long a STUN or TURN server may keep an answer waiting."""

MAX_PAIRS = 100
"""Candidate pairs per connection (RFC 8445 section 6.1.2.5)."""

MAX_QUEUED_PACKETS = 512
"""Packets that may wait for DTLS to start: ten seconds of audio, all of a handshake."""

Address = tuple[str, int]


def _authenticated_sources(connection: ice.Connection) -> set[Address]:
    found: set[Address] = vars(connection).setdefault("_vocal_sources", set())
    return found


def _may_be_heard(connection: ice.Connection, source: Address) -> bool:
    sources = _authenticated_sources(connection)
    if source not in sources and any(
        pair.remote_addr == source and pair.state is ice.CandidatePair.State.SUCCEEDED
        for pair in connection._check_list
    ):
        sources.add(source)
    return source in sources


def packets_from_strangers() -> None:
    """Pass on what is not STUN only from sources that passed an authenticated check (RFC 7983, RFC 8826 section 4.2).

    Without it anybody who knows the port can end a call in set-up with one forged DTLS alert, and a running call with
    one empty datagram. Every checked source counts, not only the nominated pair: some browsers use several. An
    authenticated check of theirs is enough, so that a DTLS hello that overtakes our own check is not lost.
    """
    require_attributes(ice.Connection, "data_received", "request_received")

    def make(original: Callable[..., None]) -> Callable[..., None]:
        def datagram_received(self: ice.StunProtocol, data: bytes, addr: tuple[Any, ...]) -> None:
            connection = self.receiver
            if not data:
                return
            if data[0] < 4:
                _receive_stun(original, self, data, addr)
            elif _may_be_heard(connection, (addr[0], addr[1])) and connection._queue.qsize() < MAX_QUEUED_PACKETS:
                hear(connection)
                connection.data_received(data, self.local_candidate.component)

        return datagram_received

    replace(ice.StunProtocol, "datagram_received", "self data addr", make)


def _receive_stun(
    original: Callable[..., None], protocol: ice.StunProtocol, data: bytes, addr: tuple[Any, ...]
) -> None:
    try:
        stun.parse_message(data)
    except Exception as error:  # it also raises struct.error, and a stranger must not fill the log
        log.debug("rubbish that looks like STUN from %s: %s", addr, error)
        return
    original(protocol, data, addr)


def checks_that_grow_without_end() -> None:
    """Bound the pairs that incoming checks create, and drop a check without PRIORITY (RFC 8445 section 7.1.1).

    Without it a caller who sends its checks from ever new (or forged) addresses makes the server send seven packets to
    each of them, and sort an ever longer list.
    """

    def make(original: Callable[..., None]) -> Callable[..., None]:
        def check_incoming(
            self: ice.Connection, message: stun.Message, addr: Address, protocol: ice.StunProtocol
        ) -> None:
            known = any((c._network_host, c.port) == addr for c in self._remote_candidates)
            if "PRIORITY" not in message.attributes or (not known and len(self._check_list) >= MAX_PAIRS):
                log.debug("check from %s refused", addr)
                return
            _authenticated_sources(self).add(addr)
            hear(self)
            original(self, message, addr, protocol)

        return check_incoming

    replace(ice.Connection, "check_incoming", "self message addr protocol", make)


def consent_that_takes_half_a_minute_to_miss() -> None:
    """Ask for consent every second and give up after 30 s without an answer (RFC 7675 section 5.1).

    Without it consent is asked every 5 s, each answer has to arrive within 500 ms, and six misses in a row end the
    call: a dead peer is noticed after half a minute, and loss of a fifth each way kills one ten-minute call in seven.
    """

    def make(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def query_consent(self: ice.Connection) -> None:
            await Consent(self).ask_until_expired()
            self._query_consent_task = None
            await self.close()

        return query_consent

    replace(ice.Connection, "query_consent", "self", make)


def stun_server_that_does_not_answer() -> None:
    """Gather for at most 500 ms, and look names up without the event loop's default executor.

    Without it an answer waits 5 s for a dead STUN server, and a name server that does not answer holds threads of the
    executor in which audio is encoded.
    """
    replace(ice.Connection, "get_component_candidates", "self component addresses timeout", _bounded_gathering)
    replace(ice, "server_reflexive_candidate", "protocol stun_server", lambda _: server_reflexive_candidate)


def _bounded_gathering(
    original: Callable[..., Awaitable[list[Candidate]]],
) -> Callable[..., Awaitable[list[Candidate]]]:
    async def get_component_candidates(
        self: ice.Connection, component: int, addresses: list[str], timeout: float = GATHER_S
    ) -> list[Candidate]:
        return await original(self, component, addresses, timeout)

    return get_component_candidates


async def server_reflexive_candidate(protocol: ice.StunProtocol, stun_server: Address) -> tuple[Candidate, None]:
    """Ask a STUN server for our address as it sees it (RFC 8489). Raises TransactionError, DNSException."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    response, _ = await protocol.request(request, (await ipv4_address(stun_server[0]), stun_server[1]))
    local = protocol.local_candidate
    host, port = response.attributes["XOR-MAPPED-ADDRESS"]
    return Candidate(
        foundation=candidate_foundation("srflx", "udp", local.host),
        component=local.component,
        transport=local.transport,
        priority=candidate_priority(local.component, "srflx"),
        host=host,
        port=port,
        type="srflx",
        related_address=local.host,
        related_port=local.port,
    ), None


async def ipv4_address(host: str) -> str:
    """Return the IPv4 address of ``host`` (a literal, localhost or a name in the DNS). Raises DNSException."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.IPv4Address(host))
    if host == "localhost":
        return "127.0.0.1"
    answer = await dns.asyncresolver.resolve(host, "A", lifetime=GATHER_S, search=True)
    return str(answer[0])


def machine_without_a_network() -> None:
    """Offer the loopback address where a machine has no other, so that a call on it still connects.

    Without it a laptop in flight mode gathers no candidate at all and the call never starts.
    """

    def make(original: Callable[..., list[str]]) -> Callable[..., list[str]]:
        def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
            return original(use_ipv4, use_ipv6) or ["127.0.0.1"]

        return get_host_addresses

    replace(ice, "get_host_addresses", "use_ipv4 use_ipv6", make)


def connecting_that_outlives_close() -> None:
    """End the task that connects before the connection is closed.

    Without it a handshake that is just finishing when ``close`` runs goes on to start senders, receivers and their
    threads on a closed connection, where nothing ends them; and a second transport that it starts raises
    InvalidStateError in a task that nobody awaits.
    """
    connect = "_RTCPeerConnection__connect"

    def make_connect(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def run(self: RTCPeerConnection) -> None:
            tasks = _connecting(self)
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await original(self)
            except InvalidStateError:
                log.debug("closed while connecting")
            finally:
                tasks.discard(task)

        return run

    def make_close(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def close(self: RTCPeerConnection) -> None:
            tasks = {task for task in _connecting(self) if task is not asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await original(self)

        return close

    replace(RTCPeerConnection, connect, "self", make_connect)
    replace(RTCPeerConnection, "close", "self", make_close)


def _connecting(connection: RTCPeerConnection) -> set[asyncio.Task[Any]]:
    tasks: set[asyncio.Task[Any]] = vars(connection).setdefault("_vocal_connecting", set())
    return tasks


REMEDIES = (
    packets_from_strangers,
    checks_that_grow_without_end,
    consent_that_takes_half_a_minute_to_miss,
    stun_server_that_does_not_answer,
    machine_without_a_network,
    connecting_that_outlives_close,
)
