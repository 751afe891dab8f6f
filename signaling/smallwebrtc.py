"""Pipecat's SmallWebRTC signaling: ``/start``, then offer, trickle and hang-up at ``/api/offer``.

Its client SDKs connect unmodified. A client that lost its connection sends a new offer with ``restart_pc`` and the old
``pc_id``: a new connection, the same conversation. After a failed first attempt it sends ``restart_pc`` with no
``pc_id`` at all, which is a first offer like any other. A ``pc_id`` without ``restart_pc`` would be a renegotiation;
clients do that only when told to, which this server never does, so it is taken as a first offer too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from aiohttp import hdrs, web
from pydantic import AliasChoices, Field, StringConstraints

from pipeline.errors import ProtocolError
from signaling.bodies import BODY_MAX_BYTES, read_json
from signaling.calling import OFFER_BUCKETS, answer_offer, caller_address, path_id
from signaling.calls import CALLS, Answer, Candidate, Offer
from signaling.ice import IceServers, browser_form
from signaling.schema import Wire
from signaling.started import StartedSessions

MAX_CANDIDATES = 64
ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
"""Checked with Rust's regex: ``$`` is the very end."""


class StartBody(Wire):
    """``POST /start``; what it asks besides ``body`` concerns transports this server has not."""

    body: dict[str, Any] | None = None


class OfferBody(Wire):
    """``POST /api/offer``."""

    sdp: str
    type: Literal["offer"]
    pc_id: Id | None = None
    restart_pc: bool | None = None
    request_data: dict[str, Any] | None = Field(
        default=None, validation_alias=AliasChoices("request_data", "requestData")
    )


class CandidateBody(Wire):
    """An RTCIceCandidate, in SmallWebRTC's spelling or the browser's own."""

    candidate: Annotated[str, StringConstraints(max_length=1024)]
    sdp_mid: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, validation_alias=AliasChoices("sdp_mid", "sdpMid")
    )
    sdp_mline_index: Annotated[int, Field(ge=0, lt=1024)] | None = Field(
        default=None, validation_alias=AliasChoices("sdp_mline_index", "sdpMLineIndex")
    )


class CandidatesBody(Wire):
    """``PATCH /api/offer``."""

    pc_id: Id
    candidates: Annotated[list[CandidateBody], Field(max_length=MAX_CANDIDATES)]


class SmallWebRtc:
    """The handlers, and the sessions that were started."""

    def __init__(self, ice: IceServers, utc_s: Callable[[], float], started: StartedSessions) -> None:
        """``utc_s`` tells the time of day in seconds since the epoch."""
        self._ice = ice
        self._utc_s = utc_s
        self._started = started

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add ``/start`` and both spellings of ``/api/offer``."""
        router.add_post("/start", self.start)
        for prefix in ("", "/sessions/{session_id}"):
            router.add_post(f"{prefix}/api/offer", self.offer)
            router.add_patch(f"{prefix}/api/offer", self.trickle)
            router.add_delete(f"{prefix}/api/offer/{{pc_id}}", self.hang_up)

    async def start(self, request: web.Request) -> web.Response:
        """Promise a session: its id, and the ICE servers to use with it."""
        request.app[OFFER_BUCKETS].require(request)
        body = await _read_start(request)
        session_id = self._started.add(body.body or {}, request.content_length or BODY_MAX_BYTES)
        ice = browser_form(self._ice.issue(self._utc_s(), session_id))
        answer = {"sessionId": session_id, "iceConfig": ice}
        return web.json_response(answer, headers={str(hdrs.CACHE_CONTROL): "no-store"})

    async def offer(self, request: web.Request) -> web.StreamResponse:
        """Answer an offer."""
        request.app[OFFER_BUCKETS].require(request)
        body = await read_json(request, OfferBody)
        restart_of = body.pc_id if body.restart_pc else None
        started = {} if restart_of else self._started_data(request)
        data = {**started, **(body.request_data or {})}
        offer = Offer(body.sdp, caller_address(request), data, restart_of=restart_of)
        return await answer_offer(request, offer, _offer_response)

    async def trickle(self, request: web.Request) -> web.Response:
        """Add candidates."""
        body = await read_json(request, CandidatesBody)
        candidates = [Candidate(_line(c.candidate), c.sdp_mid, c.sdp_mline_index) for c in body.candidates]
        await request.app[CALLS].add_candidates(body.pc_id, candidates)
        return web.json_response({"status": "success"})

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call."""
        call_id = path_id(request, "pc_id")
        if call_id is None:
            raise ProtocolError("no such call", param="pc_id", status=404)
        await request.app[CALLS].hang_up(call_id)
        return web.json_response({"status": "success"})

    def _started_data(self, request: web.Request) -> Mapping[str, Any]:
        session_id = request.match_info.get("session_id")
        return {} if session_id is None else self._started.find(session_id)


async def _read_start(request: web.Request) -> StartBody:
    """Read ``/start``'s body; the SDKs send none at all where the application gave nothing to send."""
    return await read_json(request, StartBody) if request.body_exists else StartBody()


def _line(text: str) -> str:
    """Return a candidate's line as an SDP attribute's value."""
    return text.strip().removeprefix("a=")


def _offer_response(answer: Answer) -> web.Response:
    body = {"sdp": answer.sdp, "type": "answer", "pc_id": answer.call_id}
    return web.json_response(body, headers={str(hdrs.CACHE_CONTROL): "no-store"})
