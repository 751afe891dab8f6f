"""The engines of one process, from their creation off the loop to the end of their threads and connections.

One of each kind is there from the start; others that an agent or a route names are created when they are first asked
for, if their models are here: nobody waits in a call for a download. A heavy engine never runs in the media process: it
gets a service process, reached as any other server is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from pipeline.agents import Agent
from pipeline.cloning import clones
from pipeline.engines import Chosen, Engines, Kind, Settings, aclose, choose, is_heavy, load, names
from pipeline.errors import ProtocolError
from pipeline.model_download import stoppable
from pipeline.tasks import cancel_and_wait
from pipeline.threads import EngineThreads, run_in_thread
from pipeline.vad.energy import EnergyVad

log = logging.getLogger(__name__)

REMOTE = "openai_compatible"
MAX_STARTING = 5

StartService = Callable[[Kind, str, Settings], Awaitable[Settings]]
"""Start a service process for an engine; return the settings with which ``openai_compatible`` reaches it.

Raises EngineUnavailable with what the process said if it could not be started.
"""


class EngineSet:
    """Use as ``async with``: implements ``compat_ws.backend.EngineSource``."""

    def __init__(
        self, wanted: Mapping[Kind, str], settings: Settings, start_service: StartService | None = None
    ) -> None:
        """``wanted`` names an engine (or ``auto``) of each kind; without ``start_service`` heavy ones run here."""
        self._wanted = wanted
        self._settings = settings
        self._start_service = start_service
        self._starter = EngineThreads("start", workers=MAX_STARTING)
        self._creating: dict[tuple[Kind, str], asyncio.Task[Chosen]] = {}
        self._created: list[Chosen] = []
        self._served: dict[Kind, Chosen] = {}
        self._known: Mapping[Kind, Sequence[str]] = {}
        self._give_up: set[Callable[[], bool]] = set()
        self._closing = False

    async def __aenter__(self) -> Self:
        """Create one engine of each kind, all at once. Raises EngineUnavailable, which says what is missing."""
        try:
            self._known = await run_in_thread(self._starter, lambda: {kind: names(kind) for kind in self._wanted})
            tasks = {kind: self._create(kind, name, self._settings) for kind, name in self._wanted.items()}
            outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
            for failure in outcomes:
                if isinstance(failure, BaseException):
                    raise failure
            self._served = {kind: task.result() for kind, task in tasks.items()}
            await self._warm()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all; blocks for at most one step of each worker, or one piece of a download."""
        self._closing = True
        await cancel_and_wait(*self._creating.values())
        for give_up in tuple(self._give_up):  # a worker waits for a service to start, and the next line for the worker
            give_up()
        self._starter.close()
        for chosen in self._created:  # among them those that were finished when nobody waited any more
            await aclose(chosen.engine)

    def served(self) -> Mapping[Kind, Chosen]:
        """Return the server's own choice of each kind."""
        return self._served

    @property
    def named_settings(self) -> Settings:
        """The settings of an engine that is created when it is named: what is not here by then is not downloaded."""
        return {**self._settings, "VOCAL_OFFLINE": "1"}

    async def get(self, kind: Kind, name: str | None = None) -> Chosen:
        """See ``EngineSource.get``. Canceling is safe: the engine is created for the next one who asks."""
        own = self._served.get(kind)
        if own is not None and name in (None, own.name):
            return own
        known = self._known.get(kind, ())
        if name is None or name not in known:
            raise ProtocolError(
                f"there is no {kind} engine {str(name)[:64]!r} here; known: {', '.join(known)}", param=kind
            )
        task = self._creating.get((kind, name)) or self._create(kind, name, self.named_settings)
        return await asyncio.shield(task)

    def in_use(self) -> Iterator[tuple[Kind, Chosen]]:
        """Yield every engine that there is: the server's own choices, then those that were named."""
        yield from self._served.items()
        for (kind, _), task in self._creating.items():
            created = task.result() if task.done() else None  # one that failed is not among them any more
            if created is not None and created is not self._served.get(kind):
                yield kind, created

    async def for_agent(self, agent: Agent) -> tuple[Agent, Engines]:
        """Return the engines this agent wants, and the agent with the voice to ask its speech engine for."""
        stt = await self.get("stt", agent.stt)
        llm = await self.get("llm", agent.llm)
        tts = await self.get("tts", agent.tts)
        detector = EnergyVad(agent.detector.energy_threshold) if agent.detector else self._served["vad"].engine
        turn = self._served["turn"].engine if "turn" in self._served else None
        voice = agent.voice_for(tts.name, clones=clones(tts.engine))
        return replace(agent, voice=voice), Engines(detector, stt.engine, llm.engine, tts.engine, turn)

    async def _warm(self) -> None:
        """Open the connections to engines elsewhere, or the first caller would wait for them."""
        reason = await self.why_not_ready()
        if reason is not None:
            log.info("not there yet: %s", reason)

    async def why_not_ready(self) -> str | None:
        """Return the first engine in use elsewhere that does not answer, and why; None if all is well."""
        remote = [(k, c.engine.ready) for k, c in self._served.items() if hasattr(c.engine, "ready")]
        reasons = await asyncio.gather(*(ready() for _, ready in remote))
        return next((f"{kind}: {reason}" for (kind, _), reason in zip(remote, reasons, strict=True) if reason), None)

    def _create(self, kind: Kind, name: str, settings: Settings) -> asyncio.Task[Chosen]:
        task = asyncio.create_task(self._choose(kind, name, settings), name=f"create {kind} {name}")
        self._creating[kind, name] = task
        task.add_done_callback(lambda done: self._forget_failed(kind, name, done))
        return task

    def _forget_failed(self, kind: Kind, name: str, task: asyncio.Task[Chosen]) -> None:
        """Whoever asks next tries again: what was missing may be there by then."""
        if task.cancelled() or task.exception() is not None:
            self._creating.pop((kind, name), None)

    async def _choose(self, kind: Kind, name: str, settings: Settings) -> Chosen:
        began_s = time.perf_counter()
        loop = asyncio.get_running_loop()

        def create() -> Chosen:
            with stoppable(lambda: self._closing):
                created = choose(kind, name, settings, lambda *wanted: self._load(loop, *wanted))
            self._created.append(created)
            return created

        chosen = await run_in_thread(self._starter, create)
        log.debug("%s %s ready after %.0f ms", kind, chosen.name, (time.perf_counter() - began_s) * 1000)
        return chosen

    def _load(self, loop: asyncio.AbstractEventLoop, kind: Kind, name: str, settings: Settings) -> Any:
        """Create an engine here, or a heavy one in a process of its own. Runs in a worker."""
        if self._start_service is None or not is_heavy(kind, name, settings):
            return load(kind, name, settings)
        starting = asyncio.run_coroutine_threadsafe(_settings_of(self._start_service(kind, name, settings)), loop)
        self._give_up.add(starting.cancel)
        try:
            return load(kind, REMOTE, starting.result())
        finally:
            self._give_up.discard(starting.cancel)


async def _settings_of(starting: Awaitable[Settings]) -> Settings:
    return await starting
