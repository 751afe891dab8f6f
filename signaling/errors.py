"""One shape for every error of the whole application: ``{"error": {"message", "type", "param"}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from pipeline.errors import EngineError, EngineUnavailable, NotOffered, Overloaded, ProtocolError, VocalError

log = logging.getLogger(__name__)

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
CLIENT_GONE = 499
"""Read by nobody but logs and metrics: the client left before it was answered."""
KEPT_HEADERS = (hdrs.ALLOW, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE)


def error_response(
    status: int, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with an error; ``param`` names the field at fault."""
    return web.json_response(error_body(status, message, param), status=status, headers=headers)


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the one shape, for a message within an answer that has begun; ``status`` is what it would have been."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param}}


def status_of(error: VocalError) -> int:
    """Return the status an error is answered with: theirs 4xx, ours 5xx."""
    match error:
        case ProtocolError():
            return error.status
        case Overloaded():
            return 503
        case NotOffered():
            return 400
        case EngineUnavailable():
            return 500
    return 502


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer: theirs 4xx, ours 5xx, full 503. Put it first among the middlewares.

    What is our fault is logged once, here; what nobody foresaw comes with its traceback, and is answered without a word
    of what it was. Where a response has begun the connection is closed, so that the client sees it cut short and not
    mixed with another.
    """
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = _http_error(request, error)
    except Exception as error:
        answer = _answer(request, error)
    if request.writer.output_size > 0 and request.transport is not None:
        request.transport.close()
    return answer


def _answer(request: web.Request, error: Exception) -> web.Response:
    match error:
        case ProtocolError() | EngineError():
            if status_of(error) >= 500:
                log.warning("%s %s failed: %s", request.method, request.path, error)
            return error_response(status_of(error), str(error), getattr(error, "param", None))
        case Overloaded():
            return error_response(503, str(error), headers={hdrs.RETRY_AFTER: str(error.retry_after_s)})
        case ConnectionError() if request.transport is None or request.transport.is_closing():
            return web.Response(status=CLIENT_GONE)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return error_response(500, "internal error: the server's log says more")


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    headers = {str(name): error.headers[name] for name in KEPT_HEADERS if name in error.headers}
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return error_response(405, f"{request.method} is not possible here, only {allowed}", headers=headers)
    message = "there is nothing at this address" if error.status == 404 else error.reason
    return error_response(error.status, message, headers=headers)
