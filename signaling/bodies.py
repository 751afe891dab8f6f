"""Request bodies, bounded: at most so many bytes are ever held, and they arrive within seconds or not at all."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from pipeline.errors import ProtocolError
from signaling.schema import Wire, first_error

BODY_MAX_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0

Model = TypeVar("Model", bound=Wire)


async def read_body(
    request: web.Request, limit_bytes: int = BODY_MAX_BYTES, timeout_s: float = BODY_TIMEOUT_S
) -> bytes:
    """Read the body. Raises ProtocolError: 413 as soon as it is known to be too long, 408 when it does not come,
    400 where it is not encoded as announced."""
    if (request.content_length or 0) > limit_bytes:
        raise _too_long(limit_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit_bytes:
                    raise _too_long(limit_bytes)
    except web.RequestPayloadError:
        raise ProtocolError("the body cannot be read: it is not encoded as its headers say") from None
    except TimeoutError:
        raise ProtocolError(f"the body did not arrive within {timeout_s:g} s", status=408) from None
    return bytes(body)


def _too_long(limit_bytes: int) -> ProtocolError:
    return ProtocolError(f"the body is too long: at most {limit_bytes} bytes are read", status=413)


async def read_text(request: web.Request, content_type: str) -> str:
    """Read a body of exactly this type. Raises ProtocolError: 415 for another, 400 where it is not UTF-8."""
    _require_type(request, content_type)
    try:
        return (await read_body(request)).decode()
    except UnicodeDecodeError:
        raise ProtocolError("the body is not UTF-8 text") from None


async def read_json(request: web.Request, model: type[Model], limit_bytes: int = BODY_MAX_BYTES) -> Model:
    """Read a JSON object into ``model``. Raises ProtocolError: 415 for another type, 400 naming the wrong field."""
    _require_type(request, "application/json")
    body = await read_body(request, limit_bytes)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        field, why = first_error(error)
        raise ProtocolError(f"{field}: {why}" if field else f"the body: {why}", param=field) from None


def _require_type(request: web.Request, content_type: str) -> None:
    if request.content_type != content_type:
        raise ProtocolError(f"Content-Type must be {content_type}, not {request.content_type}", status=415)
