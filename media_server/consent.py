"""Whether the other side is still there: ICE consent (RFC 7675), and when a connection was last heard."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aioice import ice, stun

INTERVAL_S = 1.0
"""Between two checks while the peer is heard."""

URGENT_INTERVAL_S = 0.25
"""Between two checks once nothing has been heard for an interval: loss must not look like death."""

EXPIRY_S = 30.0
"""Consent ends this long after the last answer (RFC 7675 section 5.1)."""


def hear(connection: ice.Connection) -> None:
    """Note that something authenticated arrived just now: an answer, a check, or a packet from a checked source."""
    vars(connection)["_vocal_heard_at"] = asyncio.get_running_loop().time()


def silent_s(connection: ice.Connection) -> float | None:
    """Return the seconds since ``connection`` was last heard, None if it never was."""
    heard_at: float | None = vars(connection).get("_vocal_heard_at")
    return None if heard_at is None else asyncio.get_running_loop().time() - heard_at


def round_trip_s(connection: ice.Connection) -> float | None:
    """Return how long the latest answered check took, None before the first."""
    found: float | None = vars(connection).get("_vocal_round_trip_s")
    return found


@dataclass(slots=True)
class Check:
    """One consent check in flight: takes the place of a STUN transaction, but nobody waits for it."""

    consent: Consent
    protocol: ice.StunProtocol
    transaction_id: bytes
    address: tuple[str, int]
    key: bytes
    sent_at: float

    def response_received(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Renew consent if the answer is a success, signed, and from where the check went."""
        success = message.message_class is stun.Class.RESPONSE and addr == self.address
        if success and message.check_message_integrity(self.key):
            self.consent.renew()
            connection = self.consent.connection
            vars(connection)["_vocal_round_trip_s"] = asyncio.get_running_loop().time() - self.sent_at


@dataclass(slots=True)
class Consent:
    """Ask one connection's nominated pairs for consent; answers may take as long as the expiry allows."""

    connection: ice.Connection
    given_at: float = field(init=False)
    checks: deque[Check] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start the 30 s anew."""
        self.given_at = asyncio.get_running_loop().time()
        hear(self.connection)

    async def ask_until_expired(self) -> None:
        """Return once consent has expired. Canceling is safe: nothing of the checks stays behind."""
        loop = asyncio.get_running_loop()
        try:
            while loop.time() - self.given_at < EXPIRY_S:
                await asyncio.sleep(self._interval_s() * random.uniform(0.8, 1.2))
                self._forget_before(loop.time() - EXPIRY_S)
                for pair in self.connection._nominated.values():
                    self._ask(pair)
        finally:
            self._forget_before(float("inf"))

    def _interval_s(self) -> float:
        return URGENT_INTERVAL_S if (silent_s(self.connection) or 0.0) >= INTERVAL_S else INTERVAL_S

    def _ask(self, pair: ice.CandidatePair) -> None:
        request = self.connection.build_request(pair, nominate=False)
        key = str(self.connection.remote_password).encode()
        request.add_message_integrity(key)
        now = asyncio.get_running_loop().time()
        check = Check(self, pair.protocol, request.transaction_id, pair.remote_addr, key, now)
        transactions: dict[bytes, Any] = pair.protocol.transactions
        transactions[check.transaction_id] = check
        self.checks.append(check)
        pair.protocol.send_stun(request, pair.remote_addr)

    def _forget_before(self, time: float) -> None:
        while self.checks and self.checks[0].sent_at < time:
            check = self.checks.popleft()
            check.protocol.transactions.pop(check.transaction_id, None)
