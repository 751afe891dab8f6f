"""One line per fact: time, level, logger, session, message; or the same as JSON.

Lifecycle is INFO, the wire is DEBUG. What was said, prompts, keys and tokens never appear above DEBUG.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

SESSION: ContextVar[str] = ContextVar("session", default="-")
"""The session on whose behalf this task runs. Set it in the task that owns the session: its children inherit it."""

ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
"""Control characters, which could forge a line or command a terminal. What strangers send may be in a message."""

COMPLAINTS = 50
MESSAGE_CHARS = 300
"""Of what is kept to be shown."""

QUIET = (
    "aiohttp.access",
    "aioice",
    "aiortc",
    "aiosqlite",
    "alembic",
    "asyncio",
    "av",
    "cartesia",
    "faster_whisper",
    "groq",
    "httpcore",
    "httpx",
    "huggingface_hub",
    "nltk",
    "websockets",
)


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO  media_server.hub session=3f2a call opened``; a traceback follows, if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        session = SESSION.get()
        message = record.getMessage().translate(ESCAPED)
        line = f"{_stamp(record)} {record.levelname:<7} {record.name} session={session} {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, session, message, and error where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        fields = {
            "time": _stamp(record),
            "level": record.levelname,
            "logger": record.name,
            "session": SESSION.get(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log without its traceback. ``count``: so many were equal but for their time, the last one's."""

    time: str
    level: str
    logger: str
    session: str
    message: str
    count: int = 1


class Complaints(logging.Handler):
    """The newest warnings and errors, each cut to ``MESSAGE_CHARS``: bounded, whatever is logged however often."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[Line] = deque(maxlen=COMPLAINTS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, or count it with the one before."""
        try:
            line = _line(record)
        except Exception:  # what a library logs may not be what it formats
            self.handleError(record)
            return
        last = self._lines[-1] if self._lines else None
        if last is not None and line == replace(last, time=line.time, count=1):
            self._lines[-1] = replace(line, count=last.count + 1)
        else:
            self._lines.append(line)

    def newest_first(self) -> list[Line]:
        """Return what there is."""
        return list(self._lines)[::-1]


def _line(record: logging.LogRecord) -> Line:
    message = record.getMessage()
    error = record.exc_info[0] if record.exc_info else None
    message = message if error is None else f"{message} ({error.__name__})"
    shown = message[: MESSAGE_CHARS + 1].translate(ESCAPED)
    cut = shown if len(shown) <= MESSAGE_CHARS else f"{shown[: MESSAGE_CHARS - 1]}\N{HORIZONTAL ELLIPSIS}"
    return Line(_stamp(record), record.levelname, record.name, SESSION.get(), cut)


@contextmanager
def complaints() -> Iterator[Complaints]:
    """Keep the newest warnings and errors of this process from now on, until the block ends."""
    kept, root = Complaints(), logging.getLogger()
    root.addHandler(kept)
    try:
        yield kept
    finally:
        root.removeHandler(kept)


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell whether this is news: HTTP that cannot be read is answered with 400, and its trace would quote keys."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, RequestPayloadError))


def configure(level: str = "INFO", form: Literal["text", "json"] = "text") -> None:
    """Send every log line to stderr. Libraries that talk about each packet are held to warnings, or INFO at DEBUG."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    quiet = logging.INFO if level == "DEBUG" else logging.WARNING
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(quiet, logging.getLevelName(level)))
