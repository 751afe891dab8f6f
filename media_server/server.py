"""The process: sockets, signals, start and end.

SIGTERM drains (no new session; those that run may end by themselves within ``VOCAL_DRAIN_S``), SIGINT ends them now,
and a second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from aiohttp import web

from pipeline.engines import Kind
from pipeline.errors import VocalError
from pipeline.tasks import cancel_and_wait

from .app import ENGINE_SET, HUB, create_app, create_service_app
from .config import Config
from .event_loop import loop_factory, signals
from .hub import Hub
from .parentage import Parent
from .patching import LibraryChanged
from .services import name_of
from .sockets import StartFailed, address, listen

log = logging.getLogger(__name__)

CLOSE_S = 2.0
"""How long requests in progress may take to end once the sessions have."""

SILENT_S = 75.0
"""How long a connection may be open and say nothing. Longer than proxies keep theirs: they are the ones to close."""

Announce = Callable[[str], None]


def run(
    config: Config,
    service: Kind | None = None,
    parent: Parent | None = None,
    announce: Announce = lambda line: print(line, flush=True),  # noqa: T201
) -> int:
    """Serve until a signal: everything, or one service alone. Return the exit code. Raises StartFailed.

    Listens on the sockets of ``parent`` where there is one, and tells it when requests are answered.
    """
    with ExitStack() as stack:
        sockets = parent.sockets if parent else listen(config.host, *config.listens_on(service))
        for sock in sockets:
            stack.enter_context(sock)

        def ready() -> None:
            what = f"Vocal Node's {name_of(service)}" if service else "Vocal Node"
            announce(f"{what} is ready: {address(config.host, sockets)}")
            if parent:
                parent.tell_ready()

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_serve(config, service, sockets, announce, ready))


async def _serve(
    config: Config,
    service: Kind | None,
    sockets: Sequence[socket.socket],
    announce: Announce,
    ready: Callable[[], None],
) -> int:
    with signals() as seen:
        app = create_service_app(config, service) if service else create_app(config)
        runner = new_runner(app)
        starting = asyncio.create_task(_start(runner, sockets, announce), name="start")
        stopping = asyncio.create_task(seen.get(), name="stop")
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                ready()
                if await stopping == signal.SIGTERM and HUB in app:
                    await _drain(app[HUB], config.drain_s)
        except (VocalError, LibraryChanged) as error:
            raise StartFailed(str(error)) from error
        finally:
            await cancel_and_wait(starting, stopping)
            await runner.cleanup()
    return 0


def new_runner(app: web.Application) -> web.AppRunner:
    """Return what serves ``app`` over HTTP."""
    return web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=SILENT_S,
        shutdown_timeout=CLOSE_S,
        handle_signals=False,
        handler_cancellation=True,  # who has left needs no more of what an engine is still making
    )


async def _start(runner: web.AppRunner, sockets: Sequence[socket.socket], announce: Callable[[str], None]) -> None:
    await runner.setup()
    for chosen in runner.app[ENGINE_SET].served().values():
        announce(chosen.why)
    for sock in sockets:
        await web.SockSite(runner, sock).start()
    gc.collect()
    gc.freeze()  # what is loaded now stays: a full collection would stop the audio for 100 ms


async def _drain(hub: Hub, limit_s: float) -> None:
    log.info("draining: no new sessions; those that run have %g s", limit_s)
    await hub.drain(limit_s)
