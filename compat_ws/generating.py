"""What an engine makes for one client: counted, bounded in patience, and closed at once when the client goes.

That a client has gone reaches a handler as its cancellation (``handler_cancellation`` of aiohttp's runner), whatever it
waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Generic, Self, TypeVar

from pipeline.engines import Kind
from pipeline.errors import EngineError, Overloaded, ProtocolError
from pipeline.reply import Patience
from pipeline.tasks import closing

from .backend import Outcome, ServiceListener

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = Patience()


class Generation(Generic[T]):
    """Use as ``async with`` and iterate within. The next item may take ``patience_s``.

    Raises EngineError, whatever the engine raised. ProtocolError and Overloaded pass: an engine that is fed by a
    client raises what is wrong with the food.
    """

    def __init__(self, listener: ServiceListener, kind: Kind, items: AsyncIterator[T], patience_s: float) -> None:
        self._listener = listener
        self._kind: Kind = kind
        self._items = items
        self._patience_s = patience_s
        self._waiting: asyncio.Timeout | None = None
        self._outcome: Outcome = "abandoned"

    async def __aenter__(self) -> Self:
        self._listener.begun(self._kind)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with closing(self._items):
                pass
        finally:
            self._listener.ended(self._kind, self._outcome)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            item = await self._next()
        except StopAsyncIteration:
            self._outcome = "finished"
            raise
        except (ProtocolError, Overloaded):
            raise
        except EngineError:
            self._outcome = "failed"
            raise
        except Exception as error:
            self._outcome = "failed"
            raise self._blamed(error) from error
        self._listener.produced(self._kind)
        return item

    def hurry(self, patience_s: float) -> None:
        """Be this patient from now on, also with the item that is being waited for."""
        self._patience_s = patience_s
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time() + patience_s)

    def enough(self) -> None:
        """What there is may be all that is wanted: whoever takes nothing more has not abandoned it."""
        self._outcome = "finished"

    async def _next(self) -> T:
        try:
            async with asyncio.timeout(self._patience_s) as self._waiting:
                return await anext(self._items)
        finally:
            self._waiting = None

    def _blamed(self, error: Exception) -> EngineError:
        if isinstance(error, TimeoutError):
            return EngineError(f"the {self._kind} engine gave nothing for {self._patience_s:g} s")
        log.error("a %s engine raised", self._kind, exc_info=error)
        return EngineError(f"the {self._kind} engine failed: {type(error).__name__}")
