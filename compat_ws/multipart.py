"""Forms with files (``multipart/form-data``, RFC 7578 over RFC 2046 section 5.1), sans-IO: bytes in, parts out.

Nothing is held back but what may be the beginning of a delimiter, so that a sound can be listened to while it is still
being sent (aiohttp's own reader holds a whole chunk back), and whatever is wrong is a ProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value

from pipeline.errors import ProtocolError

HEAD_MAX_BYTES = 8192
"""Of one part's headers."""
PADDING_MAX_BYTES = 64
"""White space behind a delimiter; mail gateways used to add some."""
BOUNDARY_MAX_CHARS = 70


@dataclass(frozen=True, slots=True)
class Part:
    """A part begins. ``filename`` and ``content_type`` are empty where none is given; ``rate`` is the type's."""

    name: str
    filename: str = ""
    content_type: str = ""
    rate: str = ""


@dataclass(frozen=True, slots=True)
class PartEnded:
    """The part that began last is complete."""


PartEvent = Part | bytes | PartEnded
"""Of each part: a `Part`, its content in pieces, a `PartEnded`."""


def boundary_of(content_type: str) -> str:
    """Return the boundary that a request's Content-Type names. Raises ProtocolError: 415 if it is no form."""
    if not content_type.isascii():
        raise ProtocolError("the Content-Type has characters that a header may not have")
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() != "multipart/form-data":
        raise ProtocolError("Content-Type must be multipart/form-data, with the sound as its field 'file'", status=415)
    boundary = _parameter(header, "boundary", "content-type").rstrip()
    if not 0 < len(boundary) <= BOUNDARY_MAX_CHARS or not boundary.isascii():
        raise ProtocolError("the Content-Type names no usable boundary")
    return boundary


class FormParser:
    """Push bytes, cut anywhere; get events. ``end`` says that no more will come."""

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = bytearray(b"\r\n")  # the first delimiter needs no line before it
        self._step: Callable[[], list[PartEvent] | None] = self._preamble

    def push(self, octets: bytes) -> list[PartEvent]:
        """Add bytes; return what they complete. Raises ProtocolError for what is no form."""
        self._buffer += octets
        events: list[PartEvent] = []
        while (found := self._step()) is not None:
            events += found
        return events

    def end(self) -> None:
        """Raise ProtocolError if the closing delimiter has not come."""
        if self._step != self._epilogue:
            raise ProtocolError("the form is cut short: its closing boundary is missing")

    # Each step returns what it found and names its successor, or returns None: it needs more bytes.

    def _preamble(self) -> list[PartEvent] | None:
        _, ended = self._before_delimiter()
        if not ended:
            return None
        self._step = self._behind_delimiter
        return []

    def _behind_delimiter(self) -> list[PartEvent] | None:
        if len(self._buffer) < 2:
            return None
        if self._buffer.startswith(b"--"):
            self._step = self._epilogue
            return []
        line, found, _ = self._buffer.partition(b"\r\n")
        if line.strip(b" \t\r") or len(line) > PADDING_MAX_BYTES:
            raise ProtocolError("the form cannot be read: something stands behind a boundary")
        if not found:
            return None
        del self._buffer[: len(line)]
        self._step = self._head
        return []

    def _head(self) -> list[PartEvent] | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end > HEAD_MAX_BYTES or (end < 0 and len(self._buffer) > HEAD_MAX_BYTES):
            raise ProtocolError(f"the form cannot be read: a part's headers are over {HEAD_MAX_BYTES} bytes")
        if end < 0:
            return None
        part = _part(bytes(self._buffer[2:end]))
        del self._buffer[: end + 4]
        self._step = self._content
        return [part]

    def _content(self) -> list[PartEvent] | None:
        content, ended = self._before_delimiter()
        events: list[PartEvent] = [content] if content else []
        if not ended:
            return events or None
        self._step = self._behind_delimiter
        return [*events, PartEnded()]

    def _epilogue(self) -> list[PartEvent] | None:
        self._buffer.clear()
        return None

    def _before_delimiter(self) -> tuple[bytes, bool]:
        """Take what stands before the delimiter, which may not be there yet."""
        at = self._buffer.find(self._delimiter)
        end = at if at >= 0 else len(self._buffer) - self._maybe_delimiter()
        content = bytes(self._buffer[:end])
        del self._buffer[: end if at < 0 else end + len(self._delimiter)]
        return content, at >= 0

    def _maybe_delimiter(self) -> int:
        """Return how many bytes at the end may be a delimiter's beginning."""
        most = min(len(self._delimiter) - 1, len(self._buffer))
        return next((n for n in range(most, 0, -1) if self._buffer.endswith(self._delimiter[:n])), 0)


def _part(head: bytes) -> Part:
    headers = HeaderParser().parsestr(head.decode(errors="replace"))
    name = _parameter(headers, "name", "content-disposition")
    if not name:
        raise ProtocolError("the form cannot be read: a part has no name")
    typed = "content-type" in headers
    return Part(
        name,
        _parameter(headers, "filename", "content-disposition"),
        headers.get_content_type() if typed else "",
        _parameter(headers, "rate", "content-type"),
    )


def _parameter(headers: Message, name: str, header: str) -> str:
    try:
        return collapse_rfc2231_value(headers.get_param(name, "", header))
    except UnicodeError:  # RFC 2231 lets a value name its charset; Python's idna, which is none, raises
        raise ProtocolError(f"the form cannot be read: the {name} is not written in the charset it names") from None
