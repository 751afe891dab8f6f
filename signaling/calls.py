"""What signaling asks of the media server. It never sees aiortc; ``media_server.hub`` implements this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Offer:
    """An SDP offer and what came with it.

    ``remote`` is the caller's IP address as HTTP saw it, empty where a proxy hides it. ``request`` is the client's
    ``request_data``: ``agent`` (an id) or the fields of an inline agent. ``restart_of`` names the call whose
    conversation a new connection carries on. ``listen_to`` (WHEP) names the call whose agent's voice this receive-only
    peer wants.
    """

    sdp: str
    remote: str
    request: Mapping[str, Any]
    restart_of: str | None = None
    listen_to: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """``call_id`` is the ``pc_id`` of SmallWebRTC and the last segment of WHIP's Location: random, unguessable."""

    sdp: str
    call_id: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One trickled ICE candidate: the ``candidate:...`` line without ``a=`` (empty: end of candidates)."""

    line: str
    sdp_mid: str | None
    sdp_mline_index: int | None


class Calls(Protocol):
    """Accept an offer, add candidates, hang up."""

    async def accept(self, offer: Offer) -> Answer:
        """Answer an offer. Raises Overloaded before looking at the SDP, ProtocolError for a bad one or an unknown
        ``restart_of`` or ``listen_to`` (status 404) or an unknown agent (param ``agent``). Canceling is safe: then,
        as after an error, nothing of the call stays."""
        ...

    async def add_candidates(self, call_id: str, candidates: Sequence[Candidate]) -> None:
        """Add remote candidates. Raises ProtocolError: status 404 for an unknown call, 400 for rubbish or too many."""
        ...

    async def hang_up(self, call_id: str) -> None:
        """End a call; returns when nothing of it is left. Raises ProtocolError with status 404 if unknown."""
        ...


CALLS: web.AppKey[Calls] = web.AppKey("calls", Calls)
