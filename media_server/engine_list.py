"""Which engines there are and what each lacks: what ``vocal-node doctor`` prints and ``GET /engines`` answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from aiohttp import web

from compat_ws.shown import shown
from pipeline.cloning import can_clone, clones, voice_maker
from pipeline.engines import Chosen, Kind, Settings, module, usable
from pipeline.tasks import cancel_and_wait
from pipeline.threads import EngineThreads, run_in_thread

KINDS: dict[Kind, str] = {
    "vad": "speech detection",
    "stt": "speech-to-text",
    "llm": "language model",
    "tts": "text-to-speech",
    "turn": "end of turn",
}
KEPT_S = 5.0
"""How old an answer may be: what was installed or fetched meanwhile shows soon."""

Shown = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Listed:
    """An engine of the list. ``lacks`` is None if it is usable; ``auto`` never takes one that is ``by_name_only``."""

    name: str
    usable: bool
    lacks: str | None
    note: str
    chosen: bool = False
    by_name_only: bool = False


def listed(kind: Kind, settings: Settings) -> list[Listed]:
    """Describe the engines of a kind that ship, the best first, none of them chosen. Imports modules, reads disks."""
    return [
        Listed(name, found.lacks is None, found.lacks, found.note, by_name_only=found.rank < 0)
        for name, found in usable(kind, settings)
    ]


def expected(kind: Kind, settings: Settings) -> list[Listed]:
    """Return the list as a server would have it that starts with these settings. Imports modules, reads disks."""
    engines = listed(kind, settings)
    wanted = settings.get(f"VOCAL_{kind.upper()}", "auto")
    best = next((engine.name for engine in engines if engine.usable and not engine.by_name_only), None)
    return [replace(engine, chosen=engine.name == (best if wanted == "auto" else wanted)) for engine in engines]


def running(kind: Kind, settings: Settings, own: Chosen | None) -> list[Listed]:
    """Return the list of a server that runs its ``own`` choice. Imports modules, reads disks.

    That one is usable whatever it may lack by now, and is listed even if it is an operator's module.
    """
    engines = listed(kind, settings)
    if own is None:
        return engines
    known = next((engine for engine in engines if engine.name == own.name), None) or _third_party(kind, own, settings)
    others = [engine for engine in engines if engine.name != own.name]
    return sorted([replace(known, usable=True, lacks=None, chosen=True), *others], key=lambda engine: not engine.usable)


def _third_party(kind: Kind, own: Chosen, settings: Settings) -> Listed:
    describe = getattr(module(kind, own.name), "describe", None)
    return Listed(own.name, True, None, describe(settings).note if describe is not None else "", by_name_only=True)


class EngineList:
    """The list of a running server. Use as ``async with``: what it asks may block, and is asked on its own thread."""

    def __init__(self, settings: Settings, served: Callable[[], Mapping[Kind, Chosen]]) -> None:
        """``settings`` are those with which an engine is created that an agent names; ``served`` the own choices."""
        self._settings = settings
        self._served = served
        self._threads = EngineThreads("engine list")
        self._reading: asyncio.Task[Shown] | None = None
        self._until_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reading is not None:
            await cancel_and_wait(self._reading)
        self._threads.close()

    async def get(self) -> Shown:
        """Return the engines by kind, as they were ``KEPT_S`` ago at most. Canceling is safe: others may wait, too."""
        now_s = asyncio.get_running_loop().time()
        if self._reading is None or (self._reading.done() and now_s >= self._until_s):
            self._until_s = now_s + KEPT_S
            self._reading = asyncio.create_task(run_in_thread(self._threads, self._read), name="list engines")
        return await asyncio.shield(self._reading)

    def _read(self) -> Shown:
        return {kind: list(self._read_kind(kind, self._served().get(kind))) for kind in KINDS}

    def _read_kind(self, kind: Kind, own: Chosen | None) -> Iterator[dict[str, Any]]:
        for engine in running(kind, self._settings, own):
            facts = asdict(engine)
            if kind == "tts":
                facts["clones"] = _clones(own.engine) if own and engine.chosen else can_clone(engine.name)
            yield facts


def _clones(tts: object) -> bool:
    return clones(tts) or voice_maker(tts) is not None


ENGINE_LIST: web.AppKey[EngineList] = web.AppKey("engine_list", EngineList)


def add_routes(router: web.UrlDispatcher) -> None:
    """Add ``GET /engines``. ``app[ENGINE_LIST]`` is set before the first request."""
    router.add_get("/engines", show_engines)


async def show_engines(request: web.Request) -> web.Response:
    """Show the engines of every kind."""
    return shown(await request.app[ENGINE_LIST].get())
