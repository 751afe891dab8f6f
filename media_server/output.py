"""What service processes print: the bytes of a pipe become lines, and lines go to a terminal or to files."""

from __future__ import annotations

import asyncio
import codecs
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Literal, TextIO

MAX_LINE_CHARS = 16_384
LAST_WORDS_S = 1.0
"""How long to read on what a dead process wrote, should a process of its own hold the pipe open."""
MAX_FILE_BYTES = 10 * 2**20
"""A log file that is full becomes NAME.log.1, and the one before it goes."""

Output = Callable[[str, str], None]
"""Take one line of a process, by its name."""


class Lines:
    """Bytes in, lines out. A line longer than ``MAX_LINE_CHARS`` comes in pieces; what is not UTF-8 is escaped."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""

    def feed(self, octets: bytes) -> list[str]:
        """Return the lines that ``octets`` completed, without their ends."""
        *whole, rest = (self._rest + self._decoder.decode(octets)).split("\n")
        *long, self._rest = _pieces(rest)
        return [piece for line in whole for piece in _pieces(line)] + long

    def end(self) -> list[str]:
        """Return what was begun and never completed."""
        rest = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        return _pieces(rest) if rest else []


def _pieces(line: str) -> list[str]:
    return [line[at : at + MAX_LINE_CHARS] for at in range(0, len(line), MAX_LINE_CHARS)] or [""]


class _Relay(asyncio.Protocol):
    """Pass on the lines of a pipe as they come."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.closed = asyncio.Event()
        self._tell = tell
        self._lines = Lines()

    def data_received(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._tell(line)

    def connection_lost(self, error: Exception | None) -> None:
        for line in self._lines.end():
            self._tell(line)
        self.closed.set()


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    read_end, write_end = os.pipe()
    return os.fdopen(read_end, "rb", 0), os.fdopen(write_end, "wb", 0)


@asynccontextmanager
async def relayed(tell: Callable[[str], None]) -> AsyncIterator[IO[bytes]]:
    """Give the end of a pipe to write to, which is the caller's to close; each line of it goes to ``tell``.

    On the way out everything that was written has been told.
    """
    read, write = _pipe()
    with write:
        transport, relay = await asyncio.get_running_loop().connect_read_pipe(partial(_Relay, tell), read)
        try:
            yield write
        finally:
            write.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await relay.closed.wait()
            transport.close()
            await relay.closed.wait()


def console(stream: TextIO, form: Literal["text", "json"] = "text", width: int = 0) -> Output:
    """Return what writes lines to a stream, each with its process's name before it; JSON stays JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s" if form == "json" else f"%(name)-{width}s | %(message)s"))
    return lambda name, line: _emit(handler, name, line)


@contextmanager
def files(folder: Path, names: Sequence[str]) -> Iterator[Output]:
    """Open what appends lines to ``folder/NAME.log``. Raises OSError where it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        handlers = {
            name: RotatingFileHandler(log_file(folder, name), "a", MAX_FILE_BYTES, 1, "utf-8") for name in names
        }
        for handler in handlers.values():
            stack.callback(handler.close)
        yield lambda name, line: _emit(handlers[name], name, line)


def log_file(folder: Path, name: str) -> Path:
    """Return where ``files`` writes."""
    return folder / f"{name}.log"


def _emit(handler: logging.Handler, name: str, line: str) -> None:
    handler.handle(logging.LogRecord(name, logging.INFO, "", 0, line, None, None))
