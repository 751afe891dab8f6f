"""Owned tasks, and engine iterators that are closed whatever happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, Self, TypeVar

from .errors import EngineError

log = logging.getLogger(__name__)

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


@contextmanager
def canceled_by_its_owner_alone() -> Iterator[None]:
    """Pass the cancellation of this task on; an engine's CancelledError that nobody asked for becomes EngineError.

    Unnoticed, it would end the task as if its owner had wanted that, who goes on waiting.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        log.error("an engine canceled itself", exc_info=error)
        raise EngineError("the engine canceled itself") from error


class Limited(Generic[T]):
    """Pass items on; raise TimeoutError if the next one takes longer than ``timeout_s`` to come.

    Needs no closing: a generator that is left half way would be closed by a task that nobody owns.
    """

    def __init__(self, iterator: AsyncIterator[T], timeout_s: float) -> None:
        self._iterator = iterator
        self._timeout_s = timeout_s

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        async with asyncio.timeout(self._timeout_s):
            return await anext(self._iterator)
