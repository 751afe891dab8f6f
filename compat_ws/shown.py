"""How what is kept is shown: as JSON that no cache keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web


def shown(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with it."""
    return web.json_response(body, status=status, headers={str(hdrs.CACHE_CONTROL): "no-store", **(headers or {})})


def created(location: str, body: Mapping[str, Any]) -> web.Response:
    """Answer with something new, and where it is."""
    return shown(body, status=201, headers={str(hdrs.LOCATION): location})
