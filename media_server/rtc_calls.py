"""Calls over WebRTC: an offer becomes a peer, a session and a place in the hub; what broke off can be carried on."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pipeline.agents import Agent
from pipeline.audio import VOICE_RATE_HZ, AudioFormat
from pipeline.errors import ProtocolError
from pipeline.history import History
from pipeline.playout import Playout
from pipeline.session import Session
from signaling.calls import Answer, Candidate, Offer

from . import hardening
from .hub import LABEL_CHARS, Call, Hub
from .log import SESSION
from .peer import IceServerTuple, Peer, PeerLimits
from .sdp import VettedOffer, vet

MakeSession = Callable[[Agent, Playout, History | None], Awaitable[Session]]
FindAgent = Callable[[Mapping[str, Any]], Awaitable[Agent]]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long and how many conversations are kept of calls that broke off; and what peers are held to."""

    kept_s: float = 60.0
    max_kept: int = 256
    peer: PeerLimits = field(default_factory=PeerLimits)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is kept of a call that broke off."""

    agent: Agent
    history: History
    until_s: float


@dataclass(frozen=True, slots=True)
class Connection:
    """A call's own connection, and the address it was offered from."""

    peer: Peer
    remote: str


class RtcCalls:
    """Implements ``signaling.calls.Calls``."""

    def __init__(
        self,
        hub: Hub,
        make_session: MakeSession,
        find_agent: FindAgent,
        ice_servers: Callable[[], Sequence[IceServerTuple]] = tuple,
        limits: CallLimits | None = None,
    ) -> None:
        hardening.apply()
        self.hub = hub
        self._make_session = make_session
        self._find_agent = find_agent
        self._ice_servers = ice_servers
        self._limits = limits or CallLimits()
        self._connections: dict[str, Connection] = {}
        self._kept: OrderedDict[str, Conversation] = OrderedDict()

    async def accept(self, offer: Offer) -> Answer:
        """See ``Calls.accept``. Canceling is safe: nothing of the call stays."""
        replaces = offer.restart_of in self._connections or offer.listen_to is not None
        call_id = secrets.token_urlsafe(16)
        with ExitStack() as setting_up:
            setting_up.enter_context(self.hub.place(replaces=replaces))
            tag = SESSION.set(call_id[:LABEL_CHARS])  # the connection's own tasks inherit it: packets arrive in them
            try:
                return await self._open(offer, call_id, setting_up)
            except ProtocolError as error:
                self.hub.listener.refused("agent" if error.param == "agent" else "offer")
                raise
            finally:
                SESSION.reset(tag)

    async def _open(self, offer: Offer, call_id: str, setting_up: ExitStack) -> Answer:
        if offer.listen_to is not None:
            return await self._open_listener(offer, call_id, offer.listen_to)
        agent = await self._agent(offer)
        vetted = vet(offer.sdp, offer.remote)
        playout = Playout(AudioFormat(VOICE_RATE_HZ))
        peer = self._peer(vetted, playout)
        sdp = await peer.negotiate()
        try:
            history = None
            if offer.restart_of is not None:
                agent, history = await self._take_over(offer.restart_of)
            session = await self._make_session(agent, playout, history)
        except BaseException:
            await peer.close("refused")
            raise
        place = setting_up.pop_all()  # from here on the call holds it
        self._start(Call(call_id, peer, session), Connection(peer, offer.remote), place)
        return Answer(sdp, call_id)

    async def _agent(self, offer: Offer) -> Agent:
        if offer.restart_of is None:
            return await self._find_agent(offer.request)
        self._forget_expired()
        call, kept = self.hub.calls.get(offer.restart_of), self._kept.get(offer.restart_of)
        if call is not None and call.id in self._connections and call.listens_to is None:
            return call.session.agent
        if kept is not None:
            return kept.agent
        raise _unknown("pc_id", "there is no such conversation to go on with, or it ended too long ago; call anew")

    async def _take_over(self, call_id: str) -> tuple[Agent, History]:
        connection = self._connections.get(call_id)
        if connection is not None:
            await connection.peer.close("restarted")
        kept = self._kept.pop(call_id, None)
        if kept is None:
            raise _unknown("pc_id", "that conversation was ended meanwhile; call anew")
        return kept.agent, kept.history

    async def _open_listener(self, offer: Offer, listener_id: str, call_id: str) -> Answer:
        call, connection = self.hub.calls.get(call_id), self._connections.get(call_id)
        if call is None or connection is None or call.listens_to is not None:
            raise _unknown("session", "there is no such call to listen to")
        if connection.peer.track is not None:
            raise ProtocolError("that call's own connection carries the voice already", param="session", status=409)
        vetted = vet(offer.sdp, offer.remote)
        if vetted.direction == "sendonly":
            raise ProtocolError("who listens has to offer its audio recvonly", param="sdp")
        peer = self._peer(vetted, call.session.playout)
        sdp = await peer.negotiate()
        try:
            await self._close_listeners(call_id)
            if self.hub.calls.get(call_id) is not call:
                raise _unknown("session", "that call has just ended")
        except BaseException:
            await peer.close("refused")
            raise
        self._start(Call(listener_id, peer, call.session, call_id), Connection(peer, offer.remote), ExitStack())
        return Answer(sdp, listener_id)

    async def _close_listeners(self, call_id: str) -> None:
        """Return once nobody listens to this call: a playout has one consumer. Another may come while one goes."""
        while others := [other for other in self.hub.calls.values() if other.listens_to == call_id]:
            await others[0].transport.close("replaced")

    def _peer(self, vetted: VettedOffer, playout: Playout) -> Peer:
        return Peer(vetted, playout, self._ice_servers(), self._limits.peer)

    def _start(self, call: Call, connection: Connection, place: ExitStack) -> None:
        def ended(reason: str) -> None:
            del self._connections[call.id]
            place.close()
            if call.listens_to is None:
                self._keep(call, reason)
            self.hub.closed(call, reason)

        self._connections[call.id] = connection
        connection.peer.start(call.session, ended, name=call.label, listener=call.listens_to is not None)
        self.hub.opened(call)

    # --- those that are there

    async def add_candidates(self, call_id: str, candidates: Sequence[Candidate]) -> None:
        """See ``Calls.add_candidates``."""
        connection = self._find(call_id)
        await connection.peer.add_candidates(candidates, connection.remote)

    async def hang_up(self, call_id: str) -> None:
        """See ``Calls.hang_up``."""
        await self._find(call_id).peer.close("hung up")

    def _find(self, call_id: str) -> Connection:
        connection = self._connections.get(call_id)
        if connection is None:
            raise _unknown("pc_id", "there is no such call; it may have ended")
        return connection

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


def _unknown(param: str, message: str) -> ProtocolError:
    return ProtocolError(message, param=param, status=404)
