"""A form with one sound in it, read while it arrives: bounded in bytes, parts and time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aiohttp import hdrs, web
from pydantic import ValidationError

from pipeline.errors import Overloaded, ProtocolError
from signaling.schema import Wire, first_error

from .multipart import FormParser, Part, PartEvent, boundary_of
from .sound import SOUND_MAX_BYTES

Model = TypeVar("Model", bound=Wire)

FILE_FIELDS = ("file", "audio_file")
FIELD_MAX_BYTES = 16 * 1024
MAX_FIELDS = 64
FORM_MAX_BYTES = SOUND_MAX_BYTES + 64 * 1024
PAUSE_MAX_S = 30.0
"""How long nothing may arrive."""
FORM_MAX_S = 900.0
"""How long all of it may take: a sound may be sent while it is being spoken."""
MAX_WHOLE = 16
"""Forms that are held in memory at once."""


class Form:
    """Read it in order: `read_fields`, then `content`, then `read_fields` again for what stands behind the file."""

    def __init__(self, request: web.Request, repeated: Collection[str] = ()) -> None:
        """Fields in ``repeated`` are joined by commas, of others the last one counts.

        Raises ProtocolError for a request that is no form, or is known to be too long.
        """
        self.fields: dict[str, str] = {}
        self.file: Part | None = None
        self._request = request
        self._repeated = repeated
        self._parser = FormParser(boundary_of(request.headers.get(hdrs.CONTENT_TYPE, "")))
        self._events: deque[PartEvent] = deque()
        self._bytes = 0
        self._due_s = asyncio.get_running_loop().time() + FORM_MAX_S
        if (request.content_length or 0) > FORM_MAX_BYTES:
            raise _too_long()

    async def read_fields(self) -> int:
        """Read up to the file, or to the form's end; return how many fields there were."""
        count = 0
        while (event := await self._next()) is not None:
            if not isinstance(event, Part):
                continue
            if event.name in FILE_FIELDS:
                self._file_begins(event)
                break
            self._require_room(event)
            self._add(event, await self._field(event))
            count += 1
        return count

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the file in pieces, as they arrive."""
        while isinstance(event := await self._next(), bytes):
            yield event

    async def goes_on(self) -> bool:
        """Tell whether another part of the same file follows; everything else is left to ``read_fields``."""
        event = await self._next()
        if event == self.file:
            return True
        if event is not None:
            self._events.appendleft(event)
        return False

    def read_into(self, model: type[Model]) -> Model:
        """Check the fields; an empty one is as if it were not there. Raises ProtocolError naming the wrong one."""
        try:
            return model.model_validate({name: value for name, value in self.fields.items() if value})
        except ValidationError as error:
            field, why = first_error(error)
            raise ProtocolError(f"{field}: {why}", param=field) from None

    def _file_begins(self, part: Part) -> None:
        if self.file is not None:
            raise ProtocolError("the form has two files: send one", param=part.name)
        self.file = part

    def _require_room(self, part: Part) -> None:
        if len(self.fields) >= MAX_FIELDS:
            raise ProtocolError(f"the form has over {MAX_FIELDS} fields", status=413)
        if part.filename:
            raise ProtocolError("the sound must be the field 'file' (or 'audio_file')", param="file")

    def _add(self, part: Part, value: str) -> None:
        if part.name in self._repeated and part.name in self.fields:
            value = f"{self.fields[part.name]},{value}"
            _require_short(part, len(value))
        self.fields[part.name] = value

    async def _field(self, part: Part) -> str:
        value = bytearray()
        while isinstance(event := await self._next(), bytes):
            value += event
            _require_short(part, len(value))
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ProtocolError("this field is not UTF-8 text", param=part.name[:64]) from None

    async def _next(self) -> PartEvent | None:
        """Return what comes next; None at the form's end."""
        while not self._events:
            octets = await self._read()
            if not octets:
                self._parser.end()
                return None
            self._events.extend(self._parser.push(octets))
        return self._events.popleft()

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(self._due_s, loop.time() + PAUSE_MAX_S)):
                octets = await self._request.content.readany()
        except web.RequestPayloadError:
            raise ProtocolError("the body cannot be read: it is not encoded as its headers say") from None
        except TimeoutError:
            raise ProtocolError("the form did not arrive in time", status=408) from None
        except ConnectionError:  # an engine that reads it must not be blamed
            raise ProtocolError("the client left before its form was complete") from None
        self._bytes += len(octets)
        if self._bytes > FORM_MAX_BYTES:
            raise _too_long()
        return octets


def _require_short(part: Part, there_are_bytes: int) -> None:
    if there_are_bytes > FIELD_MAX_BYTES:
        raise ProtocolError(f"a field may have {FIELD_MAX_BYTES} bytes", param=part.name[:64], status=413)


def _too_long() -> ProtocolError:
    return ProtocolError(f"the file is too long: at most {SOUND_MAX_BYTES} bytes are read", param="file", status=413)


class WholeForms:
    """The forms that are held in memory at once."""

    def __init__(self, most: int = MAX_WHOLE) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold one more. Raises Overloaded if there are too many."""
        if self._held >= self._most:
            raise Overloaded("too many sound files are being taken in: try again later")
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
