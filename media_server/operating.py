"""What an operator asks and does over HTTP: ``GET /api/status`` and ``POST /api/drain``."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from compat_ws.shown import shown
from signaling.auth import Operators
from signaling.bodies import read_json
from signaling.schema import Wire

from .status import StatusBoard

OPERATORS: web.AppKey[Operators] = web.AppKey("operators", Operators)
STATUS: web.AppKey[StatusBoard] = web.AppKey("status", StatusBoard)


class DrainBody(Wire):
    """What is wished."""

    draining: bool


def add_routes(router: web.UrlDispatcher) -> None:
    """Add them. The application has `OPERATORS`, and `STATUS` before the first request."""
    router.add_get("/api/status", show_status)
    router.add_post("/api/drain", drain)


async def show_status(request: web.Request) -> web.Response:
    """Show how the server is."""
    operators = request.app[OPERATORS]
    operators.check_look(request)
    status = await request.app[STATUS].now()
    return shown({**asdict(status), "may_drain": operators.may_act(request)})


async def drain(request: web.Request) -> web.Response:
    """Let nobody in any more, or again."""
    request.app[OPERATORS].check_act(request)
    body = await read_json(request, DrainBody)
    hub = request.app[STATUS].hub
    hub.set_draining(body.draining)
    return shown({"draining": hub.draining})
