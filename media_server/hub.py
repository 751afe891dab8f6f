"""The calls of this process: who is let in, who is there, and how all of them end.

Sessions are isolated: each lives in its own peer's task, and what one raises is logged there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.agents import Agent
from pipeline.audio import VOICE_RATE_HZ, AudioFormat
from pipeline.errors import Overloaded, ProtocolError
from pipeline.history import History
from pipeline.playout import Playout
from pipeline.session import Session
from signaling.calls import Answer, Candidate, Offer

from . import hardening
from .log import SESSION
from .loop_lag import LoopLag
from .peer import IceServerTuple, Peer, PeerLimits
from .sdp import VettedOffer, vet

log = logging.getLogger(__name__)

LABEL_CHARS = 6

MakeSession = Callable[[Agent, Playout, History | None], Session]
FindAgent = Callable[[Mapping[str, Any]], Agent]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions, how late the loop may be for another one, and what is kept of calls that broke off."""

    max_sessions: int = 64
    max_lag_ms: float = 100.0
    kept_s: float = 60.0
    max_kept: int = 256
    peer: PeerLimits = field(default_factory=PeerLimits)


@dataclass(frozen=True, slots=True)
class HubListener:
    """What the outside may count: all synchronous. Reasons of ``refused`` are draining, full, lag, offer, agent."""

    opened: Callable[[Call], None] = lambda _: None
    closed: Callable[[Call, str], None] = lambda *_: None
    refused: Callable[[str], None] = lambda _: None
    lag_ms: Callable[[float], None] = lambda _: None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call in progress. A listener shares the session of the call it listens to."""

    id: str
    remote: str
    peer: Peer
    session: Session
    listens_to: str | None = None

    @property
    def label(self) -> str:
        """What the log calls it: not the whole id, with which anybody could hang up."""
        return self.id[:LABEL_CHARS]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is kept of a call that broke off."""

    agent: Agent
    history: History
    until_s: float


class Hub:
    """Implements ``signaling.calls.Calls``. Use as ``async with``: on the way out every call has ended."""

    def __init__(
        self,
        make_session: MakeSession,
        find_agent: FindAgent,
        ice_servers: Callable[[], Sequence[IceServerTuple]] = tuple,
        limits: Limits | None = None,
        listener: HubListener | None = None,
    ) -> None:
        hardening.apply()
        self.draining = False
        self._make_session = make_session
        self._find_agent = find_agent
        self._ice_servers = ice_servers
        self._limits = limits or Limits()
        self._listener = listener or HubListener()
        self._lag = LoopLag(self._listener.lag_ms)
        self._calls: dict[str, Call] = {}
        self._opening = 0
        self._kept: OrderedDict[str, Conversation] = OrderedDict()
        self._emptied = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._lag.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.draining = True
        self._lag.stop()
        await self.close_all("server closed")

    # --- letting in

    @property
    def sessions(self) -> int:
        """Sessions that run or are being set up."""
        return self._opening + sum(call.listens_to is None for call in self._calls.values())

    def why_not(self) -> str | None:
        """Return why no further session is let in (draining, full, lag), None if one is."""
        if self.draining:
            return "draining"
        if self.sessions >= self._limits.max_sessions:
            return "full"
        return "lag" if self._lag.ms > self._limits.max_lag_ms else None

    async def accept(self, offer: Offer) -> Answer:
        """See ``Calls.accept``. Canceling is safe: nothing of the call stays."""
        self._admit(offer)
        self._opening += 1
        call_id = secrets.token_urlsafe(16)
        tag = SESSION.set(call_id[:LABEL_CHARS])  # the connection's own tasks inherit it: packets arrive in them
        try:
            return await self._open(offer, call_id)
        except ProtocolError as error:
            self._listener.refused("agent" if error.param == "agent" else "offer")
            raise
        finally:
            SESSION.reset(tag)
            self._opening -= 1

    def _admit(self, offer: Offer) -> None:
        reason = self.why_not()
        replaces = reason == "full" and (offer.restart_of in self._calls or offer.listen_to is not None)
        if reason is None or replaces:
            return
        self._listener.refused(reason)
        match reason:
            case "draining":
                raise Overloaded("this server is about to end; call again in a moment", retry_after_s=30)
            case "full":
                raise Overloaded(f"all {self._limits.max_sessions} places are taken; call again later", retry_after_s=5)
            case _:
                raise Overloaded("this server is too busy for another call; call again later", retry_after_s=2)

    async def _open(self, offer: Offer, call_id: str) -> Answer:
        if offer.listen_to is not None:
            return await self._open_listener(offer, call_id, offer.listen_to)
        agent = self._agent(offer)
        vetted = vet(offer.sdp, offer.remote)
        playout = Playout(AudioFormat(VOICE_RATE_HZ))
        peer = self._peer(vetted, playout)
        sdp = await peer.negotiate()
        try:
            history = None
            if offer.restart_of is not None:
                agent, history = await self._take_over(offer.restart_of)
            session = self._make_session(agent, playout, history)
        except BaseException:
            await peer.close("refused")
            raise
        return self._register(Call(call_id, offer.remote, peer, session), sdp)

    def _agent(self, offer: Offer) -> Agent:
        if offer.restart_of is None:
            return self._find_agent(offer.request)
        self._forget_expired()
        call, kept = self._calls.get(offer.restart_of), self._kept.get(offer.restart_of)
        if call is not None and call.listens_to is None:
            return call.session.agent
        if kept is not None:
            return kept.agent
        raise _unknown("pc_id", "there is no such conversation to go on with, or it ended too long ago; call anew")

    async def _take_over(self, call_id: str) -> tuple[Agent, History]:
        call = self._calls.get(call_id)
        if call is not None:
            await call.peer.close("restarted")
        kept = self._kept.pop(call_id, None)
        if kept is None:
            raise _unknown("pc_id", "that conversation was ended meanwhile; call anew")
        return kept.agent, kept.history

    async def _open_listener(self, offer: Offer, listener_id: str, call_id: str) -> Answer:
        call = self._calls.get(call_id)
        if call is None or call.listens_to is not None:
            raise _unknown("session", "there is no such call to listen to")
        if call.peer.track is not None:
            raise ProtocolError("that call's own connection carries the voice already", param="session", status=409)
        vetted = vet(offer.sdp, offer.remote)
        if vetted.direction == "sendonly":
            raise ProtocolError("who listens has to offer its audio recvonly", param="sdp")
        peer = self._peer(vetted, call.session.playout)
        sdp = await peer.negotiate()
        try:
            await self._close_listeners(call_id)
            if self._calls.get(call_id) is not call:
                raise _unknown("session", "that call has just ended")
        except BaseException:
            await peer.close("refused")
            raise
        return self._register(Call(listener_id, offer.remote, peer, call.session, call_id), sdp)

    async def _close_listeners(self, call_id: str) -> None:
        """Return once nobody listens to this call: a playout has one consumer. Another may come while one goes."""
        while others := [other for other in self._calls.values() if other.listens_to == call_id]:
            await others[0].peer.close("replaced")

    def _peer(self, vetted: VettedOffer, playout: Playout) -> Peer:
        return Peer(vetted, playout, self._ice_servers(), self._limits.peer)

    def _register(self, call: Call, sdp: str) -> Answer:
        self._calls[call.id] = call
        self._emptied.clear()
        listens = call.listens_to is not None
        call.peer.start(call.session, lambda reason: self._closed(call, reason), name=call.label, listener=listens)
        log.info("call %s opened%s", call.label, " to listen" if listens else "")
        self._listener.opened(call)
        return Answer(sdp, call.id)

    # --- those that are there

    async def add_candidates(self, call_id: str, candidates: Sequence[Candidate]) -> None:
        """See ``Calls.add_candidates``."""
        call = self._find(call_id)
        await call.peer.add_candidates(candidates, call.remote)

    async def hang_up(self, call_id: str) -> None:
        """See ``Calls.hang_up``."""
        await self._find(call_id).peer.close("hung up")

    def _find(self, call_id: str) -> Call:
        call = self._calls.get(call_id)
        if call is None:
            raise _unknown("pc_id", "there is no such call; it may have ended")
        return call

    def _closed(self, call: Call, reason: str) -> None:
        del self._calls[call.id]
        log.info("call %s closed: %s", call.label, reason)
        if call.listens_to is None:
            self._keep(call, reason)
            for other in self._calls.values():
                if other.listens_to == call.id:
                    other.peer.end("session closed")
        if not self._calls:
            self._emptied.set()
        self._listener.closed(call, reason)

    # --- what broke off

    def _keep(self, call: Call, reason: str) -> None:
        self._forget_expired()
        if reason == "hung up":
            return
        until_s = asyncio.get_running_loop().time() + self._limits.kept_s
        self._kept[call.id] = Conversation(call.session.agent, call.session.history, until_s)
        if len(self._kept) > self._limits.max_kept:
            self._kept.popitem(last=False)

    def _forget_expired(self) -> None:
        now_s = asyncio.get_running_loop().time()
        while self._kept and next(iter(self._kept.values())).until_s <= now_s:
            self._kept.popitem(last=False)

    # --- the end

    async def drain(self, timeout_s: float) -> None:
        """Let nobody in any more, and wait until the last call has ended, at most ``timeout_s``."""
        self.draining = True
        if self._calls:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()
            except TimeoutError:
                log.info("%d calls still run after %g s", len(self._calls), timeout_s)

    async def close_all(self, reason: str) -> None:
        """End every call; returns when nothing of them is left."""
        peers = [call.peer for call in self._calls.values()]
        await asyncio.gather(*(peer.close(reason) for peer in peers), return_exceptions=True)


def _unknown(param: str, message: str) -> ProtocolError:
    return ProtocolError(message, param=param, status=404)
