"""Owned tasks, and engine iterators that are closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close ``iterator`` on the way out, if it can be closed: ``contextlib.aclosing`` for any async iterator."""
    try:
        yield iterator
    finally:
        aclose = getattr(iterator, "aclose", None)
        if aclose is not None:
            await aclose()


async def cancel_and_wait(*tasks: asyncio.Task[object]) -> None:
    """Cancel tasks and wait until they have ended; what they raise is theirs."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def limited(iterator: AsyncIterator[T], timeout_s: float) -> AsyncIterator[T]:
    """Pass items on; raise TimeoutError if the next one takes longer than ``timeout_s`` to come."""
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                item = await anext(iterator)
        except StopAsyncIteration:
            return
        yield item
