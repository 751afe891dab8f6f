"""The engines of one server, from their creation off the loop to the end of their threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pipeline.engines import Chosen, Engines, Kind, Settings, choose, close
from pipeline.threads import EngineThreads, run_in_thread

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_engines(wanted: Mapping[Kind, str], settings: Settings) -> AsyncIterator[dict[Kind, Chosen]]:
    """Create one engine of each kind, all at once, and close them on the way out.

    Raises EngineUnavailable, which says what is missing. Leaving blocks for at most one step of each worker.
    """
    created: dict[Kind, Chosen] = {}
    starter = EngineThreads("start", workers=len(wanted))

    def create(kind: Kind, name: str) -> None:
        began_s = time.perf_counter()
        created[kind] = choose(kind, name, settings)
        log.debug("%s ready after %.0f ms", kind, (time.perf_counter() - began_s) * 1000)

    async def start(kind: Kind, name: str) -> None:
        await run_in_thread(starter, lambda: create(kind, name))

    try:
        outcomes = await asyncio.gather(*(start(*item) for item in wanted.items()), return_exceptions=True)
        for failure in (outcome for outcome in outcomes if outcome is not None):
            raise failure
        yield {kind: created[kind] for kind in wanted}
    finally:
        starter.close()
        for chosen in created.values():
            close(chosen.engine)


def as_engines(chosen: Mapping[Kind, Chosen]) -> Engines:
    """Return what a session is given."""
    return Engines(**{kind: choice.engine for kind, choice in chosen.items()})
