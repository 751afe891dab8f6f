"""What every way in has in common: an offer is answered, and the answer reaches the caller or nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from aiohttp import hdrs, web

from pipeline.errors import ProtocolError
from signaling.calls import CALLS, Answer, Offer
from signaling.origins import host_of, is_loopback
from signaling.rate_limit import TokenBuckets
from signaling.schema import is_id

PROXIED = (hdrs.FORWARDED, hdrs.X_FORWARDED_FOR)

OFFER_BUCKETS: web.AppKey[TokenBuckets] = web.AppKey("offer_buckets", TokenBuckets)


async def answer_offer(
    request: web.Request,
    offer: Offer,
    respond: Callable[[Answer], web.Response],
    undo: Callable[[Answer], object] = lambda answer: None,
) -> web.StreamResponse:
    """Accept an offer and send what ``respond`` makes of the answer.

    Canceling is safe. A caller who is gone before the answer could be sent leaves no call behind: it is hung up
    here, at once, not when its ICE runs out of time, and ``undo`` takes back what ``respond`` did.
    """
    calls = request.app[CALLS]
    answer = await calls.accept(offer)
    try:
        response = respond(answer)
        await response.prepare(request)
        await response.write_eof()
    except BaseException:
        undo(answer)
        with suppress(ProtocolError):  # it may have ended by itself meanwhile
            await calls.hang_up(answer.call_id)
        raise
    return response


def caller_address(request: web.Request) -> str:
    """Return the caller's IP address, empty where a proxy stands between.

    Behind a proxy on this machine everybody has a loopback address, with which more is allowed than with any other.
    What the proxy says of its client is not believed: it only counts that there is one.
    """
    proxied = any(header in request.headers for header in PROXIED) or not is_loopback(host_of(request))
    remote = request.remote or ""
    return "" if proxied and is_loopback(remote) else remote


def path_id(request: web.Request, name: str) -> str | None:
    """Return an id from the path; None for one that cannot be: ``%2F`` arrives decoded."""
    text = request.match_info[name]
    return text if is_id(text) else None
