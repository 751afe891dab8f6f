"""Who may talk to the server: keys and pages, checked before anything else is looked at.

Bound to loopback and without keys it is open to this machine, yet not to other people's pages. With keys, every
request needs one, except for the paths named public and for CORS preflights, which cannot carry any. An operator's key
opens what the others open, and what is for operators alone.

A key travels as ``Authorization: Bearer KEY``. A browser's WebSocket and EventSource cannot send that header: on GET
alone, ``?access_token=KEY`` does (RFC 6750 section 2.3). Never log a query string.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pipeline.errors import ProtocolError, VocalError
from signaling.errors import error_response
from signaling.origins import Origins, is_loopback, is_preflight, preflight_headers

ACCESS_TOKEN = "access_token"
PUBLIC_PATHS = ("/", "/status", "/static/*", "/favicon.ico", "/healthz", "/readyz")
OPERATORS_ONLY = "this is for operators: send one of VOCAL_OPERATOR_KEYS as Authorization: Bearer KEY"
NO_OPERATORS = "this is for operators, and no key makes one here: set VOCAL_OPERATOR_KEYS and start the server again"


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in.

    ``bound_to`` is the address the server listens on. ``keys`` and ``operator_keys``: any one of them opens; none: open
    to whoever reaches it. ``origins``: foreign pages that may call (``https://example.org``, or ``*``).
    ``public_paths``: what may be read (GET, HEAD) without a key; ``/*`` at the end stands for all below.
    """

    bound_to: str = "127.0.0.1"
    keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    public_paths: tuple[str, ...] = PUBLIC_PATHS
    operator_keys: tuple[str, ...] = field(default=(), repr=False)


def check_exposure(host: str, keys: Sequence[str], insecure: bool) -> None:
    """Refuse to let other machines in without a key. Raises VocalError with one line that says what to do."""
    if is_loopback(host) or any(keys) or insecure:
        return
    raise VocalError(
        f"VOCAL_HOST={host!r} would let other machines in without a key: set VOCAL_API_KEYS, or say --insecure"
    )


class Keys:
    """Compare keys in a time that tells nothing of them: digests, and every one of them each time."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Empty keys do not count."""
        self._digests = [_digest(key) for key in keys if key]

    def __bool__(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._digests)

    def accept(self, presented: str) -> bool:
        """Tell whether ``presented`` is one of the keys."""
        digest = _digest(presented)
        return sum([hmac.compare_digest(digest, known) for known in self._digests]) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def presented_key(request: web.Request) -> str | None:
    """Return the key a request brings, None without one."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if request.method == hdrs.METH_GET:
        return request.query.get(ACCESS_TOKEN)
    return None


class Operators:
    """Tell who may look at the server's inside and who may act on it; the guard has let them in already."""

    def __init__(self, access: Access) -> None:
        self._needs_key = bool(Keys((*access.keys, *access.operator_keys)))
        self._keys = Keys(access.operator_keys)

    def may_look(self, request: web.Request) -> bool:
        """Tell whether they may look: anyone, unless there are operators' keys."""
        return not self._keys or self._presented(request)

    def may_act(self, request: web.Request) -> bool:
        """Tell whether they may act: who has an operator's key, or anyone where no key is needed at all."""
        return not self._needs_key or self._presented(request)

    def check_look(self, request: web.Request) -> None:
        """Raise ProtocolError, 403, for who may not look."""
        if not self.may_look(request):
            raise ProtocolError(OPERATORS_ONLY, status=403)

    def check_act(self, request: web.Request) -> None:
        """Raise ProtocolError, 403, for who may not act."""
        if not self.may_act(request):
            raise ProtocolError(OPERATORS_ONLY if self._keys else NO_OPERATORS, status=403)

    def _presented(self, request: web.Request) -> bool:
        presented = presented_key(request)
        return presented is not None and self._keys.accept(presented)


def guard(access: Access, origins: Origins) -> Middleware:
    """Return the middleware that lets in only whom ``access`` names: 403 for a page or Host, 401 for a key."""
    keys = Keys((*access.keys, *access.operator_keys))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not origins.admits_host(request):
            return error_response(403, "Host names another server; list its origin in VOCAL_ORIGINS to serve it here")
        if not origins.admits(request):
            return error_response(403, "pages of this origin may not call; list it in VOCAL_ORIGINS to let them")
        if is_preflight(request):
            return await answer_preflight(request, handler)
        if keys and not is_public(request, access.public_paths):
            presented = presented_key(request)
            if presented is None or not keys.accept(presented):
                return _unauthorized(presented)
        return await handler(request)

    return check


def is_public(request: web.Request, public_paths: Sequence[str]) -> bool:
    """Tell whether this may be read without a key."""
    if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS):
        return False
    path = request.path
    return any(path.startswith(p[:-1]) if p.endswith("/*") else path == p for p in public_paths)


async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a preflight for any route: by its own OPTIONS handler, else with the methods it has. No other handler
    ever runs for one: it came without a key."""
    missing = request.match_info.http_exception
    if isinstance(missing, web.HTTPMethodNotAllowed):
        return web.Response(status=204, headers=preflight_headers(sorted(missing.allowed_methods)))
    if missing is not None or request.match_info.route.method == hdrs.METH_OPTIONS:
        return await handler(request)
    return web.Response(status=204, headers=preflight_headers([hdrs.METH_GET, hdrs.METH_POST]))


def _unauthorized(presented: str | None) -> web.Response:
    # RFC 6750 section 3.1: no error code where no key was sent.
    challenge = "Bearer" if presented is None else 'Bearer error="invalid_token"'
    message = "a key is needed: Authorization: Bearer KEY" if presented is None else "this key is not known here"
    return error_response(401, message, headers={str(hdrs.WWW_AUTHENTICATE): challenge})
