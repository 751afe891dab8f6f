"""One voice made at several vendors: at all of them, or at none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from .cloning import VoiceMaker
from .errors import EngineError

log = logging.getLogger(__name__)


class Making:
    """`make` it, and `undo` it when it failed, was canceled, or is of no use."""

    def __init__(self, makers: Mapping[str, VoiceMaker]) -> None:
        """``makers`` by the name of the speech engine that will speak with the voice."""
        self._makers = makers
        self._asked: dict[str, asyncio.Task[str]] = {}

    async def make(self, name: str, sample: bytes, language: str) -> dict[str, str]:
        """Return the voice's id at each vendor, all asked at once. Raises the EngineError of the first that failed.

        Canceling does not cancel what the vendors are doing: `undo` waits for it, or nobody would know what they made.
        """
        self._asked = {
            engine: asyncio.create_task(maker.make(name, sample, language), name=f"make a voice at {engine}")
            for engine, maker in self._makers.items()
        }
        if self._asked:
            await asyncio.wait(self._asked.values())
        return {engine: task.result() for engine, task in self._asked.items()}

    async def undo(self) -> None:
        """Delete what was made. What cannot be deleted is logged: it has to be done by hand."""
        if self._asked:
            await asyncio.wait(self._asked.values())
        for engine, task in self._asked.items():
            if task.cancelled() or (error := task.exception()) is not None:
                why = "canceled" if task.cancelled() else error
                log.warning("nothing is known of a voice that %s was asked to make: %s", engine, why)
                continue
            try:
                await self._makers[engine].forget(task.result())
            except EngineError as failure:
                log.warning("the voice %s stays at %s and is used by nobody: %s", task.result(), engine, failure)

    async def abandon(self) -> None:
        """Stop waiting for the vendors; the log says which of them may have made a voice."""
        for engine, task in self._asked.items():
            if not task.done():
                log.warning("a voice was being made at %s and may be there: delete it by hand", engine)
                task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
