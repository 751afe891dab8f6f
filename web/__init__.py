"""The bundled page: static ES modules, and the one function that adds their routes."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import ETag, hdrs, web

STATIC = Path(__file__).parent / "static"

_CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_HEADERS = {
    # Own files only, no inline script or style; the page talks to nobody but the server it came from.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Modules are many and small: asking again costs one 304 each, an old one beside a new one costs a broken page.
    hdrs.CACHE_CONTROL: "no-cache",
}

_Handler = Callable[[web.Request], Awaitable[web.Response]]


def add_routes(app: web.Application) -> None:
    """Serve the page at ``/``, the operators' at ``/status``, their files under ``/static/``: one fixed route a file.

    The files are read once, here: blocking, at start. No part of a request's path ever names a file.
    """
    for path in sorted(STATIC.rglob("*")):
        if path.suffix in _CONTENT_TYPES:
            app.router.add_get(_url(path), _file_handler(path))


def _url(path: Path) -> str:
    """Return where a file is found: a page under its name (``index`` is the root), the rest below ``/static/``."""
    name = path.relative_to(STATIC).as_posix()
    if path.suffix == ".html":
        return f"/{name.removesuffix('.html').removesuffix('index')}"
    return f"/static/{name}"


def _file_handler(path: Path) -> _Handler:
    """Return a handler that answers with this file as it is now: 200, or 304 to who has it already."""
    body = path.read_bytes()
    etag = ETag(hashlib.sha256(body).hexdigest()[:32])
    content_type = _CONTENT_TYPES[path.suffix]

    async def answer(request: web.Request) -> web.Response:
        if _has_it(request, etag):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)
        response.etag = etag
        return response

    return answer


def _has_it(request: web.Request, etag: ETag) -> bool:
    """Whether ``If-None-Match`` names this version (RFC 9110, section 13.1.2: weak comparison)."""
    known = request.if_none_match or ()
    return any(tag.value in (etag.value, "*") for tag in known)
