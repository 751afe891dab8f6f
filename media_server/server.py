"""The process: sockets, signals, start and end.

SIGTERM drains (no new session; those that run may end by themselves within ``VOCAL_DRAIN_S``), SIGINT ends them now,
and a second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from aiohttp import web

from pipeline.errors import VocalError
from pipeline.tasks import cancel_and_wait

from .app import ENGINE_SET, HUB, create_app
from .config import Config
from .patching import LibraryChanged

log = logging.getLogger(__name__)

BACKLOG = 128
CLOSE_S = 2.0
"""How long requests in progress may take to end once the sessions have."""

LOCALHOST = ("127.0.0.1", "0.0.0.0", "::")
"""Where a server listens that answers to that name, too."""

SILENT_S = 75.0
"""How long a connection may be open and say nothing. Longer than proxies keep theirs: they are the ones to close."""

SAME_SIGNAL_S = 0.5
"""Some supervisors send a signal to the process and to its group: within this time it is one signal."""


class StartFailed(Exception):
    """Say in one line why the server could not start."""


def run(config: Config, announce: Callable[[str], None] = lambda line: print(line, flush=True)) -> int:  # noqa: T201
    """Serve until a signal; return the exit code. Raises StartFailed."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(s) for s in listen(config.host, config.port)]
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(config, sockets, announce))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Take uvloop where there is one: a UDP packet costs a fifth of asyncio's."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind a socket for each address of ``host`` (one, if any port will do). Raises StartFailed, naming the port."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise StartFailed(f"VOCAL_HOST={host!r} is no address of this machine") from None
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in addresses[: None if port else 1]:
        sockets.append(_bind(socket.socket(family, kind, protocol), host, port, address))
    return sockets


def _bind(sock: socket.socket, host: str, port: int, address: object) -> socket.socket:
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartFailed(_why_not_bound(error, host, port)) from None
    return sock


def _why_not_bound(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is taken by another program: stop it, or choose another port: VOCAL_PORT={port + 1}"
        case errno.EACCES:
            return f"port {port} needs more rights than this user has: choose one above 1023: VOCAL_PORT=8000"
        case errno.EADDRNOTAVAIL:
            return f"VOCAL_HOST={host!r} is no address of this machine"
        case _:
            return f"cannot listen on {host} port {port}: {error.strerror or error}"


async def _serve(config: Config, sockets: Sequence[socket.socket], announce: Callable[[str], None]) -> int:
    with _signals() as signals:
        app = create_app(config)
        runner = new_runner(app)
        starting = asyncio.create_task(_start(runner, sockets, announce), name="start")
        stopping = asyncio.create_task(signals.get(), name="stop")
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                announce(f"Vocal Node is ready: {address(config, sockets)}")
                if await stopping == signal.SIGTERM:
                    await _drain(app, config.drain_s)
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


async def _drain(app: web.Application, limit_s: float) -> None:
    log.info("draining: no new sessions; those that run have %g s", limit_s)
    await app[HUB].drain(limit_s)


def address(config: Config, sockets: Sequence[socket.socket]) -> str:
    """Return what to type into a browser on this machine, or the name others reach it by."""
    host = "localhost" if config.host in LOCALHOST else config.host
    port = sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _signals() -> Iterator[asyncio.Queue[int]]:
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
