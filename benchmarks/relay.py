"""A UDP relay between a caller and a server, which does to their packets what a network would.

Each of both is told the relay's address in place of the other's, so no packet takes another way:

    relay = await Relay.open()
    offer = relay.as_caller(offer)        # what the server is told
    answer = relay.as_server(answer)      # what the caller is told
    relay.use(Conditions(loss=0.02), seed=1)
    relay.close()
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

from .network import DIRECT, Conditions, Network

LOOPBACK = "127.0.0.1"
CANDIDATE = re.compile(r"(a=candidate:\S+ 1 udp \d+ )(\d+\.\d+\.\d+\.\d+) (\d+)( typ host[^\r\n]*\r\n)")
ANY_CANDIDATE = re.compile(r"a=candidate:[^\r\n]*\r\n")


class _Socket(asyncio.DatagramProtocol):
    """Faces one of both: what comes from there goes through the network to the other socket, and leaves there."""

    def __init__(self) -> None:
        self.faced: tuple[str, int] | None = None
        self.beyond: _Socket = self
        self.network = Network(DIRECT, 0)
        self.packets = 0
        self.lost = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, payload: bytes, source: Any) -> None:
        delays_s = self.network.delays_s()
        self.packets += 1
        self.lost += not delays_s
        for delay_s in delays_s:
            if delay_s:
                asyncio.get_running_loop().call_later(delay_s, self.beyond.send, payload)
            else:
                self.beyond.send(payload)

    def send(self, payload: bytes) -> None:
        """Send to whom this socket faces."""
        if self.faced and not self.transport.is_closing():
            self.transport.sendto(payload, self.faced)


class Relay:
    """Two sockets on loopback: the caller knows one as the server, the server the other as the caller."""

    def __init__(self) -> None:
        self._to_caller, self._to_server = _Socket(), _Socket()
        self._to_caller.beyond, self._to_server.beyond = self._to_server, self._to_caller

    @staticmethod
    async def open() -> Relay:
        """Bind both sockets; until ``use`` nothing happens to packets."""
        relay, loop = Relay(), asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: relay._to_caller, (LOOPBACK, 0))
        await loop.create_datagram_endpoint(lambda: relay._to_server, (LOOPBACK, 0))
        return relay

    def use(self, conditions: Conditions, seed: int) -> None:
        """Be such a network from now on, both ways, and count anew."""
        for way, socket in enumerate((self._to_caller, self._to_server)):
            socket.network = Network(conditions, 2 * seed + way)
            socket.packets = socket.lost = 0

    @property
    def sent(self) -> int:
        """How many packets the caller has sent, of any kind."""
        return self._to_caller.packets

    @property
    def lost(self) -> int:
        """How many of them were lost."""
        return self._to_caller.lost

    def as_caller(self, offer: str) -> str:
        """Return the caller's offer with the relay in its place."""
        return _stand_in(offer, self._to_caller, self._to_server)

    def as_server(self, answer: str) -> str:
        """Return the server's answer with the relay in its place."""
        return _stand_in(answer, self._to_server, self._to_caller)

    def close(self) -> None:
        """Hand nothing on any more."""
        self._to_caller.transport.close()
        self._to_server.transport.close()


def _stand_in(sdp: str, faces: _Socket, stands_in: _Socket) -> str:
    """Note the first candidate as the address that is faced, and replace all by the other socket's."""
    first = CANDIDATE.search(sdp)
    if first is None:
        raise RuntimeError("the description names no IPv4 host candidate that packets could be relayed to")
    faces.faced = first[2], int(first[3])
    host, port = stands_in.transport.get_extra_info("sockname")
    before, after = sdp[: first.start()], sdp[first.end() :]
    return before + f"{first[1]}{host} {port}{first[4]}" + ANY_CANDIDATE.sub("", after)
