"""WHIP (RFC 9725), and WHEP (draft-ietf-wish-whep) to listen to a WHIP call's agent.

WHIP is one way: a sendonly offer is answered recvonly, and the agent's voice is fetched with ``/whep?session=ID``, ID
being the last segment of the WHIP Location. A sendrecv offer is answered sendrecv, so that one connection is enough.

ICE restarts are not supported, trickle ICE is; hence 422 for the former (section 4.3.1), and an entity-tag that names
the one ICE session there will ever be.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ETag, hdrs, web

from pipeline.errors import ProtocolError
from signaling.bodies import read_text
from signaling.calling import OFFER_BUCKETS, answer_offer, caller_address, path_id
from signaling.calls import CALLS, Answer, Offer
from signaling.ice import IceServers, link_headers
from signaling.origins import preflight_headers
from signaling.schema import is_id
from signaling.sdpfrag import IceCredentials, ice_credentials, parse_sdpfrag

SDP = "application/sdp"
SDP_FRAGMENT = "application/trickle-ice-sdpfrag"
MAX_RESOURCES = 10_000


@dataclass(frozen=True, slots=True)
class _Resource:
    """A WHIP session as HTTP sees it."""

    etag: str
    credentials: IceCredentials


class Whip:
    """The handlers of ``/whip`` and ``/whep``, and what conditional requests need to know of each session."""

    def __init__(self, ice: IceServers, utc_s: Callable[[], float], max_resources: int = MAX_RESOURCES) -> None:
        """``utc_s`` tells the time of day in seconds since the epoch.

        Of more than ``max_resources`` sessions the oldest can no longer trickle, which happens in a call's first
        seconds; ending them works whatever their age.
        """
        self._ice = ice
        self._utc_s = utc_s
        self._max_resources = max_resources
        self._resources: OrderedDict[str, _Resource] = OrderedDict()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add both endpoints and their sessions."""
        for endpoint, post in (("/whip", self.ingest), ("/whep", self.egress)):
            router.add_post(endpoint, post)
            router.add_get(endpoint, self.nothing_to_read)
            router.add_route(hdrs.METH_OPTIONS, endpoint, self.endpoint_options)
            router.add_patch(f"{endpoint}/{{id}}", self.trickle)
            router.add_delete(f"{endpoint}/{{id}}", self.hang_up)
            router.add_get(f"{endpoint}/{{id}}", self.session_to_read)
            router.add_route(hdrs.METH_OPTIONS, f"{endpoint}/{{id}}", self.session_options)

    async def ingest(self, request: web.Request) -> web.StreamResponse:
        """Begin a call: 201 with the answer and where to trickle and to hang up."""
        request.app[OFFER_BUCKETS].require(request)
        data = {"agent": request.query["agent"]} if "agent" in request.query else {}
        return await self._create(request, data, None)

    async def egress(self, request: web.Request) -> web.StreamResponse:
        """Listen to the agent of a WHIP call."""
        request.app[OFFER_BUCKETS].require(request)
        session = request.query.get("session", "")
        if not is_id(session):
            raise ProtocolError(
                "say whom to listen to: ?session=, the last segment of WHIP's Location", param="session"
            )
        return await self._create(request, {}, session)

    async def _create(self, request: web.Request, data: Mapping[str, Any], listen_to: str | None) -> web.StreamResponse:
        sdp = await read_text(request, SDP)
        offer = Offer(sdp, caller_address(request), data, listen_to=listen_to)
        return await answer_offer(
            request, offer, lambda a: self._created(request, sdp, a), lambda a: self._forget(a.call_id)
        )

    def _created(self, request: web.Request, sdp: str, answer: Answer) -> web.Response:
        etag = secrets.token_urlsafe(12)
        self._remember(answer.call_id, _Resource(etag, ice_credentials(sdp)))
        # As bytes: text would add "; charset=utf-8", and some clients compare the whole header.
        response = web.Response(status=201, body=answer.sdp.encode(), content_type=SDP)
        response.headers[hdrs.LOCATION] = f"{request.path}/{answer.call_id}"
        response.headers["ETag"] = f'"{etag}"'
        response.headers["Accept-Patch"] = SDP_FRAGMENT
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        for link in link_headers(self._ice.issue(self._utc_s(), answer.call_id)):
            response.headers.add(hdrs.LINK, link)
        return response

    async def trickle(self, request: web.Request) -> web.Response:
        """Add candidates: 204, without an ETag, as nothing about the ICE session has changed (section 4.3.2)."""
        call_id, resource = self._find(request)
        text = await read_text(request, SDP_FRAGMENT)
        _require_match(request, resource)
        fragment = parse_sdpfrag(text)
        if _is_restart(fragment.credentials, resource.credentials):
            raise ProtocolError("ICE restarts are not supported: POST a new offer", status=422)
        try:
            await request.app[CALLS].add_candidates(call_id, fragment.candidates)
        except ProtocolError as error:
            if error.status == 404:
                self._forget(call_id)
            raise
        return web.Response(status=204)

    async def hang_up(self, request: web.Request) -> web.Response:
        """End the call: 200. No entity-tag is asked for, and one that is sent is ignored (section 4.3.1)."""
        call_id = path_id(request, "id")
        if call_id is None:
            raise _unknown()
        self._forget(call_id)
        await request.app[CALLS].hang_up(call_id)
        return web.Response(status=200)

    async def nothing_to_read(self, request: web.Request) -> web.Response:
        """Answer GET and HEAD: neither endpoints nor sessions have a representation (section 4.1)."""
        return web.Response(status=204)

    async def session_to_read(self, request: web.Request) -> web.Response:
        """Answer GET and HEAD of a session that exists."""
        self._find(request)
        return web.Response(status=204)

    async def endpoint_options(self, request: web.Request) -> web.Response:
        """Say what may be posted (section 4.2)."""
        methods = [hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_POST]
        return _options(methods, {"Accept-Post": SDP})

    async def session_options(self, request: web.Request) -> web.Response:
        """Say what may be sent to a session (RFC 5789 section 3.1)."""
        methods = [hdrs.METH_DELETE, hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_PATCH]
        return _options(methods, {"Accept-Post": SDP, "Accept-Patch": SDP_FRAGMENT})

    def _find(self, request: web.Request) -> tuple[str, _Resource]:
        call_id = path_id(request, "id")
        resource = self._resources.get(call_id) if call_id else None
        if call_id is None or resource is None:
            raise _unknown()
        return call_id, resource

    def _remember(self, call_id: str, resource: _Resource) -> None:
        self._resources[call_id] = resource
        if len(self._resources) > self._max_resources:
            self._resources.popitem(last=False)

    def _forget(self, call_id: str) -> None:
        self._resources.pop(call_id, None)


def _unknown() -> ProtocolError:
    return ProtocolError("no such session, or it has ended", status=404)


def _options(methods: list[str], headers: Mapping[str, str]) -> web.Response:
    allow = {str(hdrs.ALLOW): ", ".join(methods)}
    return web.Response(status=200, headers={**allow, **preflight_headers(methods), **headers})


def _require_match(request: web.Request, resource: _Resource) -> None:
    """Check If-Match by strong comparison (RFC 9110 section 13.1.1): 428 without, 412 with another."""
    tags = request.if_match
    if tags is None:
        raise ProtocolError("If-Match is missing: send the ETag of the 201", status=428)
    if not any(_is_match(tag, resource.etag) for tag in tags):
        raise ProtocolError("If-Match names another ICE session than the current one", status=412)


def _is_match(tag: ETag, etag: str) -> bool:
    return tag.value == "*" or (tag.value == etag and not tag.is_weak)


def _is_restart(sent: IceCredentials, current: IceCredentials) -> bool:
    """Tell whether a fragment begins a new ICE session: credentials that are not the current ones."""
    return (sent.ufrag is not None and sent.ufrag != current.ufrag) or (
        sent.pwd is not None and sent.pwd != current.pwd
    )
