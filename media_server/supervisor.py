"""Service processes: started, followed, restarted with back-off, and ended with whoever started them.

The listening sockets belong to the parent and outlive each child: while one restarts, connections wait in the backlog
and none is refused.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from pipeline.errors import EngineUnavailable
from pipeline.tasks import cancel_and_wait

from .output import LAST_WORDS_S, Output, console, relayed
from .parentage import READY, bequest
from .services import SERVICES, Program, engine_service, engine_service_name, reaching
from .sockets import listen, own_address

if TYPE_CHECKING:
    from pipeline.engines import Kind, Settings

log = logging.getLogger(__name__)

BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long to wait before the first restart in a row, the second, ...; the last one for all that follow."""
WELL_S = 60.0
"""Who answered for so long begins a new row."""
FIRST_RESTARTS = 3
"""How often what was killed by a signal before it was ever ready is started again; what ended by itself is not."""
STOP_S = 10.0
"""How long a process may take to end after a signal before it is killed."""
MAX_REASON_CHARS = 500
SIGNALS = {number.value: number.name for number in signal.Signals}


class Ended(Exception):
    """Say in one line why a process ended. ``code`` is its exit code, negative for a signal."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Child:
    """One program that is kept running: once it has been ready, it is started again however it ends."""

    def __init__(self, program: Program, output: Output) -> None:
        """Start it, in a running loop; every line it prints goes to ``output``."""
        self.program = program
        self.restarts = 0
        """How often in a row it had to be started again."""
        self._output = output
        self._last_words = ""
        self._ready_s: float | None = None
        self._ending: tuple[int, float] = (signal.SIGTERM, STOP_S)
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_running(), name=f"keep {program.name} running")

    @property
    def is_down(self) -> bool:
        """Whether it has answered before and does not now."""
        return self._ready_s is None and self._first.done()

    @property
    def state(self) -> str:
        """What to say of it while it is down."""
        return f"{self.program.name} restarts, attempt {self.restarts} in a row"

    async def started(self) -> None:
        """Wait until it is ready for the first time. Raises Ended if it will not be; canceling is safe."""
        await asyncio.shield(self._first)

    async def stop(self, number: int = signal.SIGTERM, within_s: float = STOP_S) -> None:
        """Send it a signal, kill it if it has not ended ``within_s``, and do not start it again.

        Whoever asks while it ends already waits for that.
        """
        if not self._task.cancelling():
            self._ending = (number, within_s)
            self._task.cancel()
        self._first.cancel()
        await asyncio.wait({self._task})

    async def _keep_running(self) -> None:
        while True:
            try:
                ended = await self._run()
            except OSError as error:  # no memory, no file descriptors
                ended = Ended(f"it cannot be started: {error}", 1)
            if not self._first.done() and (ended.code >= 0 or self.restarts == FIRST_RESTARTS):
                self._first.set_exception(ended)
                return
            rest_s = BACKOFF_S[min(self.restarts, len(BACKOFF_S) - 1)]
            self.restarts += 1
            log.warning("%s ended: %s; starting it again in %g s", self.program.name, ended, rest_s)
            await asyncio.sleep(rest_s)

    async def _run(self) -> Ended:
        """Run the program once; canceling ends it."""
        self._last_words = ""
        lifeline, theirs = socket.socketpair()
        with lifeline, theirs:
            lifeline.setblocking(False)
            async with relayed(self._heard) as out, relayed(self._complained) as err:
                with theirs, out, err:
                    process = await self._spawn(theirs, out, err)
                log.info("%s runs as process %d", self.program.name, process.pid)
                code = await self._attend(process, lifeline)
        return Ended(_reason(code, self._last_words), code)

    async def _spawn(self, lifeline: socket.socket, out: IO[bytes], err: IO[bytes]) -> Process:
        sockets = self.program.sockets
        return await asyncio.create_subprocess_exec(
            *self.program.command(),
            env={**self.program.environment(), **bequest(lifeline, sockets)},
            pass_fds=[lifeline.fileno(), *(sock.fileno() for sock in sockets)],
            stdin=DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # a terminal's Ctrl-C is for us, who end the others in the right order
        )

    async def _attend(self, process: Process, lifeline: socket.socket) -> int:
        noticing = asyncio.create_task(self._notice_ready(lifeline), name=f"{self.program.name} ready")
        try:
            code = await process.wait()
            await asyncio.wait({noticing}, timeout=LAST_WORDS_S)  # it may have died the moment it was ready
            return code
        finally:
            if process.returncode is None:
                await _end(process, self.program.name, *self._ending)
            await cancel_and_wait(noticing)
            if self._ready_s is not None and _now_s() - self._ready_s >= WELL_S:
                self.restarts = 0
            self._ready_s = None

    async def _notice_ready(self, lifeline: socket.socket) -> None:
        if await asyncio.get_running_loop().sock_recv(lifeline, len(READY)) == READY:
            self._ready_s = _now_s()
            if not self._first.done():
                self._first.set_result(None)

    def _heard(self, line: str) -> None:
        self._output(self.program.name, line)

    def _complained(self, line: str) -> None:
        self._last_words = line.strip() or self._last_words
        self._heard(line)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _end(process: Process, name: str, number: int, within_s: float) -> None:
    try:
        with suppress(ProcessLookupError):
            process.send_signal(number)
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        log.warning("%s is killed: it did not end within %g s", name, within_s)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _reason(code: int, last_words: str) -> str:
    if code < 0:
        return f"killed by {SIGNALS.get(-code, f'signal {-code}')}"
    if code == 0 or not last_words:
        return f"exit code {code}"
    return last_words.removeprefix("vocal-node: ")[:MAX_REASON_CHARS]


class Supervisor:
    """The service processes of this process's heavy engines. Use as ``async with``: on the way out none is left."""

    def __init__(self, output: Output | None = None) -> None:
        """``output`` takes what they print; else it goes to stderr, each line with its service's name."""
        self._output = output or console(sys.stderr)
        self._children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(_stop(child) for child in self._children))

    async def start(self, kind: Kind, engine: str, settings: Settings) -> Settings:
        """Run an engine in a service process; return the settings with which ``openai_compatible`` reaches it.

        Returns once it is ready. Raises EngineUnavailable with its last words if it will not be; canceling ends it.
        """
        sockets = listen("127.0.0.1", 0)
        child = Child(engine_service(kind, engine, settings, sockets), self._output)
        self._children.append(child)
        try:
            await child.started()
        except BaseException as error:
            await _stop(child)
            self._children.remove(child)
            if isinstance(error, Ended):
                raise EngineUnavailable(f"{kind} engine {engine!r} did not start in its process: {error}") from None
            raise
        return reaching(kind, own_address(sockets), settings)

    def state(self) -> str | None:
        """Return which services do not answer just now, and how often they had to be restarted; None if all do."""
        return "; ".join(child.state for child in self._children if child.is_down) or None

    def runs(self, kind: Kind, engine: str) -> bool:
        """Tell whether an engine has a service process here."""
        return self._find(kind, engine) is not None

    def why_down(self, kind: Kind, engine: str) -> str | None:
        """Return why the service process of an engine does not answer just now; None if it does, or has none."""
        child = self._find(kind, engine)
        return child.state if child is not None and child.is_down else None

    def _find(self, kind: Kind, engine: str) -> Child | None:
        if kind not in SERVICES.values():
            return None
        name = engine_service_name(kind, engine)
        return next((child for child in self._children if child.program.name == name), None)


async def _stop(child: Child) -> None:
    await child.stop()
    for sock in child.program.sockets:
        sock.close()
