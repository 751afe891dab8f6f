"""The keys that tests use, and the watch over every test that none of them is told: in no log, error or output."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import VocalError

KEY = "canary-key-0123456789"
HUB_KEY = "hf_canary0123456789"
CANARIES = (KEY, HUB_KEY)

SERVED_BY_TESTS = ("aiohttp.server", "asyncio")
"""Which log what a test's own vendor was asked."""


def sings(text: str) -> bool:
    """Tell whether a key stands in ``text``."""
    return any(key in text for key in CANARIES)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Fail where a key is logged, by us or a library, at whatever level is on; or where an error of ours has one.

    Yields what was told.
    """
    told: list[str] = []
    root, watch = logging.getLogger(), _Watch(told)
    init = VocalError.__init__

    def noted(error: VocalError, *args: Any) -> None:
        if sings(str(args)):
            told.append(f"{type(error).__name__}{args}")
        Exception.__init__(error, *args)

    root.addHandler(watch)
    VocalError.__init__ = noted  # type: ignore[assignment, method-assign]
    try:
        yield told
    finally:
        VocalError.__init__ = init  # type: ignore[method-assign]
        root.removeHandler(watch)
    assert told == [], "a key was told"


class _Watch(logging.Handler):
    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(SERVED_BY_TESTS) and sings(line := self.format(record)):
            self._told.append(f"{record.name}: {line}")
