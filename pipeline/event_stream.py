"""Server-sent events, without IO: bytes in, each event's data out (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re

from .errors import EngineError

EVENT_MAX_BYTES = 256 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventStream:
    """Feed it chunks of any size. Comments and fields other than ``data`` say nothing here."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._lines: list[bytes] = []
        self._held_bytes = 0
        self._after_cr = False
        self._begun = False

    def push(self, chunk: bytes) -> list[str]:
        """Add bytes; return the data of the events that are now complete. Raises EngineError for one too long."""
        if not chunk:
            return []
        rest = chunk.removeprefix(b"\n") if self._after_cr else chunk
        self._after_cr = chunk.endswith(b"\r")
        first, *others = _LINE_END.split(rest)
        self._line += first
        self._bound()
        complete: list[str] = []
        for begun in others:
            complete += self._end_line()
            self._line += begun
            self._bound()
        return complete

    def end(self) -> list[str]:
        """Return an event that no blank line ended: the standard drops it, but servers forget that line."""
        return [*self._end_line(), *self._end_line()]

    def _end_line(self) -> list[str]:
        line = bytes(self._line)
        self._line.clear()
        if not self._begun:
            self._begun, line = True, line.removeprefix(_BOM)
        if not line:
            return self._end_event()
        field, _, value = line.partition(b":")
        if field == b"data":
            self._lines.append(value.removeprefix(b" "))
            self._held_bytes += len(value) + 1
        return []

    def _end_event(self) -> list[str]:
        lines, self._lines, self._held_bytes = self._lines, [], 0
        return [b"\n".join(lines).decode(errors="replace")] if lines else []

    def _bound(self) -> None:
        if len(self._line) + self._held_bytes > EVENT_MAX_BYTES:
            raise EngineError(f"an event of the stream is longer than {EVENT_MAX_BYTES} bytes")
