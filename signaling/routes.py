"""All the ways in, added to an application in one call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from signaling.auth import Access, guard
from signaling.calling import OFFER_BUCKETS
from signaling.errors import answer_errors
from signaling.ice import IceServers
from signaling.origins import Origins
from signaling.rate_limit import RateLimit, TokenBuckets
from signaling.smallwebrtc import SmallWebRtc
from signaling.started import StartedSessions
from signaling.whip import Whip


@dataclass(frozen=True, slots=True)
class SignalingConfig:
    """What signaling is told: ICE servers, who is let in, and how often one address may call."""

    ice: IceServers = field(default_factory=IceServers)
    access: Access = field(default_factory=Access)
    offers: RateLimit = field(default_factory=RateLimit)


def add_guard(app: web.Application, access: Access) -> None:
    """Give the whole application its errors' shape, its keys and its origins. Raises ValueError for a wrong origin.

    Middlewares that should see final statuses (metrics) go in front: append them before this call.
    """
    origins = Origins(access.origins, access.bound_to)
    app.middlewares.extend([answer_errors, guard(access, origins)])
    app.on_response_prepare.append(origins.add_cors_headers)


def add_routes(
    app: web.Application,
    config: SignalingConfig | None = None,
    *,
    utc_s: Callable[[], float] = time.time,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> None:
    """Add the routes of SmallWebRTC, WHIP and WHEP, and for the whole application what `add_guard` adds.

    ``app[CALLS]`` must be set before the first request. Raises ValueError for an origin that is none.
    """
    config = config or SignalingConfig()
    add_guard(app, config.access)
    app[OFFER_BUCKETS] = TokenBuckets(config.offers, monotonic_s)
    SmallWebRtc(config.ice, utc_s, StartedSessions(monotonic_s=monotonic_s)).add_routes(app.router)
    Whip(config.ice, utc_s).add_routes(app.router)
