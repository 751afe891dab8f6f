"""One RTCPeerConnection <-> one Session: from a vetted offer to the moment when nothing of the call is left.

    peer = Peer(vetted, playout, servers, limits)
    answer = await peer.negotiate()          # the SDP to send back
    peer.start(session, on_closed, name=...) # from here on the peer owns the session and looks after itself
    ...
    await peer.close("hung up")              # idempotent; returns when nothing is left

A call ends when somebody says so, when its session closes, when the connection fails or is closed by the caller, when
it is not connected within 15 s, and when RTP, RTCP and ICE consent have all been silent for 3 s. A muted caller sends
no RTP but goes on answering consent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aioice import ice
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.sdp import candidate_from_sdp

from pipeline.audio import Pcm
from pipeline.errors import Overloaded, ProtocolError
from pipeline.events import Event, SessionClosed
from pipeline.playout import Playout
from pipeline.session import Session
from signaling.calls import Candidate

from .candidates import MAX_CANDIDATES, parse_candidate
from .consent import round_trip_s, silent_s
from .log import SESSION
from .rtvi_link import RtviLink
from .sdp import VettedOffer
from .sdp_writer import write_answer, write_offer
from .tracks import Microphone, PlayoutTrack

log = logging.getLogger(__name__)

IceServerTuple = tuple[str, str | None, str | None]
"""URL, username and credential."""

LISTENER_BUFFER_MS = 40.0
"""What a browser's own jitter buffer holds back on a good network."""

GRACE_S = 0.1
"""After the event loop stood still its timers may run before its sockets are read: that is no silence."""


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """How long a peer may take to connect, be silent in every way, and close."""

    connect_s: float = 15.0
    silence_s: float = 3.0
    close_s: float = 5.0


class Peer:
    """See the module. ``playout`` is what the caller hears; not used where the caller only sends."""

    def __init__(
        self,
        offer: VettedOffer,
        playout: Playout,
        servers: Sequence[IceServerTuple] = (),
        limits: PeerLimits | None = None,
    ) -> None:
        self.offer = offer
        self.microphone = Microphone(self._hear)
        self.track = PlayoutTrack(playout) if offer.direction != "sendonly" else None
        self.link: RtviLink | None = None
        self._playout = playout
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=rtc_servers(servers)))
        self._limits = limits or PeerLimits()
        self._session: Session | None = None
        self._candidates = set(offer.transport.candidates)
        self._connected = asyncio.Event()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    # --- setting up

    async def negotiate(self) -> str:
        """Return the answer. Gathers at most 500 ms.

        Raises ProtocolError for whatever the library has against the offer, Overloaded where this machine has no socket
        to offer; then, and when canceled, the peer is closed.
        """
        answering = asyncio.create_task(self._answer(), name="peer-answer")
        try:
            answer = await asyncio.shield(answering)
            if "a=candidate:" not in answer:
                raise Overloaded("this machine could not open a socket for the call; try again later")
            return answer
        except BaseException as error:
            await asyncio.wait((answering,))  # gathering that is cut short forgets the sockets it has opened
            await self.close("refused")
            if isinstance(error, Overloaded) or not isinstance(error, Exception):
                raise
            log.debug("offer refused", exc_info=error)
            raise ProtocolError(f"the offer could not be applied: {error}", param="sdp") from error

    async def _answer(self) -> str:
        connection = self._connection
        connection.on("connectionstatechange", self._state_changed)
        connection.on("datachannel", self._data_channel_opened)
        await connection.setRemoteDescription(RTCSessionDescription(write_offer(self.offer), "offer"))
        if self.track is not None:
            self.track.attach(connection.addTrack(self.track))
        if self.offer.direction != "recvonly":
            self.microphone.attach(connection.getTransceivers()[0].receiver)
        await connection.setLocalDescription(await connection.createAnswer())
        return write_answer(self.offer, connection.localDescription.sdp)

    def start(self, session: Session, on_closed: Callable[[str], None], *, name: str, listener: bool = False) -> None:
        """Carry ``session`` until the call ends, then call ``on_closed(reason)``. Once, after ``negotiate``.

        ``name`` is what the log calls it.

        A ``listener`` hears another peer's session: it neither starts nor ends it. Session and reason are closed and
        given in the peer's own task.
        """
        self._session = None if listener else session
        self.link = RtviLink(self._session, lambda: self.end("hung up"))
        self._task = asyncio.create_task(self._live(session, on_closed, name), name=f"peer-{name}")

    async def add_candidates(self, candidates: Sequence[Candidate], remote: str) -> None:
        """Try these, too. Raises ProtocolError for rubbish and for more than 30 in all; then none of them is tried."""
        found = {
            usable: None
            for candidate in candidates
            if candidate.line and self.offer.concerns(candidate.sdp_mid, candidate.sdp_mline_index)
            if (usable := parse_candidate(candidate.line, remote)) is not None and usable not in self._candidates
        }
        if len(self._candidates) + len(found) > MAX_CANDIDATES:
            raise ProtocolError(f"more than {MAX_CANDIDATES} ICE candidates for one call", param="candidates")
        for usable in found:
            self._candidates.add(usable)
            candidate = candidate_from_sdp(usable.line)
            candidate.sdpMid = self.offer.mid
            await self._connection.addIceCandidate(candidate)

    # --- the call

    async def _live(self, session: Session, on_closed: Callable[[str], None], name: str) -> None:
        SESSION.set(name)
        reason = "failed"
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_callback(self._disconnect)
                stack.callback(session.subscribe(self._tell))
                if self._session is not None:
                    await stack.enter_async_context(session)
                stack.callback(self.microphone.close)
                reason = await self._until_ended()
        except Exception:
            log.exception("a call failed")
        on_closed(reason)

    async def _until_ended(self) -> str:
        watch = asyncio.create_task(self._watch(), name="peer-watch")
        try:
            await asyncio.wait((watch, self._ended), return_when=asyncio.FIRST_COMPLETED)
            return self._ended.result() if self._ended.done() else watch.result()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self) -> str:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await self._connected.wait()
        except TimeoutError:
            return "never connected"
        if self._session is not None:
            self._session.greet()
        while True:
            self._playout.in_flight_ms = LISTENER_BUFFER_MS + 500 * (round_trip_s(self._ice) or 0.0)
            await asyncio.sleep(max(0.0, self._limits.silence_s - self.silent_s) + GRACE_S)
            if self.silent_s >= self._limits.silence_s:
                return "vanished"

    @property
    def silent_s(self) -> float:
        """Seconds since anything authentic came from the caller."""
        return silent_s(self._ice) or 0.0

    @property
    def _ice(self) -> ice.Connection:
        return self._connection.getTransceivers()[0].receiver.transport.transport._connection

    def _hear(self, pcm: Pcm) -> None:
        if self._session is None or self._ended.done():
            return
        try:
            self._session.push_audio(pcm)
        except Exception:
            log.exception("the session cannot listen")
            self.end("failed")

    def _data_channel_opened(self, channel: RTCDataChannel) -> None:
        if self.link is not None:
            self.link.attach(channel)

    def _tell(self, event: Event) -> None:
        if isinstance(event, SessionClosed):
            self.end("session closed")
            event = SessionClosed(self.reason)  # only here it is known who ended the call, and why
        if self.link is not None:
            self.link.tell(event)

    def _state_changed(self) -> None:
        match self._connection.connectionState:
            case "connected":
                self._connected.set()
            case "failed":
                self.end("connection failed")
            case "closed":
                self.end("caller left")

    # --- the end

    @property
    def reason(self) -> str:
        """Why it ends or ended; "failed" where nobody said."""
        return self._ended.result() if self._ended.done() else "failed"

    def end(self, reason: str) -> None:
        """Begin to close, for this reason if it is the first one. Synchronous, idempotent."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def close(self, reason: str) -> None:
        """Close, and return when nothing is left. Canceling the wait does not cancel the closing."""
        self.end(reason)
        if self._task is None:
            self._task = asyncio.create_task(self._disconnect(), name="peer-close")
        await asyncio.shield(self._task)

    async def _disconnect(self) -> None:
        self.microphone.close()
        try:
            async with asyncio.timeout(self._limits.close_s):
                await self._connection.close()
        except TimeoutError:
            log.warning("a connection did not close within %g s", self._limits.close_s)

    def watch_lateness(self, observe: Callable[[float], None]) -> None:
        """Call ``observe`` with how late each outgoing frame leaves, in ms."""
        if self.track is not None:
            self.track.lateness.observe = observe

    def counts(self) -> dict[str, int]:
        """Return this call's counters by name, those of its microphone as ``microphone_...``."""
        counts = {f"microphone_{name}": value for name, value in self.microphone.counters.items()}
        counts["late_frames"] = self._playout.clock.late_frames
        counts["skipped_frames"] = self._playout.clock.skipped_frames
        counts["dropped_messages"] = self.link.dropped if self.link is not None else 0
        return counts


def rtc_servers(servers: Sequence[IceServerTuple]) -> list[RTCIceServer]:
    """Return what the library can use of them; never its default, which is a public server."""
    usable = []
    for url, username, credential in servers:
        try:
            parse_stun_turn_uri(url)
        except ValueError as error:
            log.debug("ICE server %s is for callers only: %s", url, error)
        else:
            usable.append(RTCIceServer(url, username, credential))
    return usable
