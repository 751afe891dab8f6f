"""The event loop of a process, and the signals that end it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAME_SIGNAL_S = 0.5
"""Some supervisors send a signal to the process and to its group: within this time it is one signal."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Take uvloop where there is one: a UDP packet costs a fifth of asyncio's."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


@contextmanager
def signals() -> Iterator[asyncio.Queue[int]]:
    """Queue SIGTERM and SIGINT; the second of either ends the process there and then, even if the loop is blocked."""
    loop = asyncio.get_running_loop()
    seen: asyncio.Queue[int] = asyncio.Queue()
    first_s: float | None = None

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first_s
        if first_s is None:
            first_s = loop.time()
            loop.call_soon_threadsafe(seen.put_nowait, number)
        elif loop.time() - first_s > SAME_SIGNAL_S:
            os._exit(128 + number)  # no atexit: it would wait for worker threads

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
