"""The routes of the WebSocket dialects. An upgrade is always granted: a browser can read why a call was refused only
from a message, never from the status of a refused upgrade."""

from __future__ import annotations

from aiohttp import web

from pipeline.errors import ProtocolError
from signaling.schema import is_id

from .backend import SESSIONS
from .client_socket import ClientSocket
from .connection import Connection
from .dialect import Dialect
from .vocal import Vocal


def add_routes(router: web.UrlDispatcher) -> None:
    """Add them."""
    router.add_get("/ws/{session_id}", vocal)


async def vocal(request: web.Request) -> web.WebSocketResponse:
    """Serve the spec's raw-PCM dialect."""
    session_id = request.match_info["session_id"]
    if is_id(session_id):
        return await serve(request, Vocal(session_id))
    client = await ClientSocket.accept(request)
    error = ProtocolError("session_id must be 1 to 64 letters, digits, - or _", param="session_id")
    await Connection(client, Vocal("")).refuse(error)
    return client.response


async def serve(request: web.Request, dialect: Dialect) -> web.WebSocketResponse:
    """Carry one call in this dialect, to its end."""
    client = await ClientSocket.accept(request)
    await Connection(client, dialect).serve(request.app[SESSIONS], request.remote or "")
    return client.response
