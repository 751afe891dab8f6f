"""``python launcher.py``: the server and its services, each a process of its own.

All ports are bound here before anything is started. The server is ended first, its services last: while it drains, it
needs them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from pipeline.tasks import cancel_and_wait

from .cli import add_offline, add_set, settings_of
from .config import Config, ConfigError, load
from .event_loop import loop_factory, signals
from .output import Output, console, files, log_file
from .services import SERVER, SERVICES, Program, reaching, service, variable
from .sockets import StartFailed, address, listen, own_address
from .supervisor import STOP_S, Child, Ended

log = logging.getLogger("launcher")

NAMES = (SERVER, *SERVICES)
WIDTH = max(map(len, (*NAMES, "launcher")))


def main(argv: Sequence[str] | None = None) -> int:
    """Run until a signal; return the exit code: 0 ended, 1 it did not work out, 2 asked wrongly."""
    args = _parser().parse_args(argv)
    names = [name for name in NAMES if name in args.services or "all" in args.services]
    try:
        config = load(settings_of(args))
        with _bound(config, names) as sockets, _output(config, names, combined=args.combined_logs) as output:
            programs = _programs(config, sockets)
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                return runner.run(_launch(config, programs, output))
    except ConfigError as error:
        return _fail(error, 2)
    except StartFailed as error:
        return _fail(error, 1)
    except Ended as error:
        return _fail(error, 2 if error.code == 2 else 1)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launcher.py", description="Start the server and its services, each in a process of its own."
    )
    parser.add_argument(
        "--services", nargs="+", choices=[*NAMES, "all"], default=["all"], help="which of them to start (all)"
    )
    parser.add_argument(
        "--combined-logs", action="store_true", help="show what they log here, and not in VOCAL_DATA_DIR/logs"
    )
    add_offline(parser)
    add_set(parser)
    return parser


def _fail(message: object, code: int) -> int:
    print(f"launcher: {message}", file=sys.stderr)
    return code


@contextmanager
def _bound(config: Config, names: Sequence[str]) -> Iterator[Mapping[str, list[socket.socket]]]:
    """Bind every port, or none. Raises StartFailed, naming the port and who wanted it."""
    bound: dict[str, list[socket.socket]] = {}
    taken: dict[int, str] = {}
    with ExitStack() as stack:
        for name in names:
            port, setting = config.listens_on(SERVICES.get(name))
            if port and port in taken:
                raise StartFailed(f"{name}: port {port} is for {taken[port]}; choose another port: {setting}")
            taken[port] = name
            try:
                bound[name] = listen(config.host, port, setting)
            except StartFailed as error:
                raise StartFailed(f"{name}: {error}") from None
            for sock in bound[name]:
                stack.enter_context(sock)
        yield bound


@contextmanager
def _output(config: Config, names: Sequence[str], *, combined: bool) -> Iterator[Output]:
    """Open what takes the lines of the services, and show our own. Raises StartFailed."""
    own = f"{log.name:<{WIDTH}} | " if combined else ""
    logging.basicConfig(level="INFO", format=f"{own}%(message)s", stream=sys.stdout, force=True)
    if combined:
        yield console(sys.stdout, width=WIDTH)
        return
    folder = config.data_dir / "logs"
    with ExitStack() as stack:
        try:
            output = stack.enter_context(files(folder, names))
        except OSError as error:
            raise StartFailed(f"cannot write logs to {folder}: {error.strerror}") from None
        log.info("logs: %s", " ".join(str(log_file(folder, name)) for name in names))
        yield output


def _programs(config: Config, sockets: Mapping[str, list[socket.socket]]) -> list[Program]:
    """Return what to start, the server last. It is given the address of each service, unless it has one already."""
    services = {name: SERVICES[name] for name in sockets if name != SERVER}
    programs = [service(kind, config.settings, sockets[name]) for name, kind in services.items()]
    if SERVER in sockets:
        settings = config.settings
        for name, kind in services.items():
            if not settings.get(variable(kind, "_URL")):
                settings = reaching(kind, own_address(sockets[name]), settings)
        programs.append(Program(SERVER, ["serve"], settings, sockets[SERVER]))
    return programs


async def _launch(config: Config, programs: Sequence[Program], output: Output) -> int:
    """Run them all until a signal. Raises Ended if one ends before it is ready."""
    number = int(signal.SIGINT)
    with signals() as seen:
        children = [Child(program, output) for program in programs]
        starting = asyncio.create_task(_start(config, children), name="start")
        stopping = asyncio.create_task(seen.get(), name="stop")
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            number = await stopping
            log.info("ending: %s", signal.Signals(number).name)
        finally:
            await cancel_and_wait(starting, stopping)
            await _stop(children, number, config.drain_s)
    return 0


async def _start(config: Config, children: Sequence[Child]) -> None:
    """Return when all are ready. Raises Ended for the first one that ends before."""
    try:
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(_started(config, child))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    last = children[-1].program
    if last.name == SERVER:
        log.info("Vocal Node is ready: %s", address(config.host, last.sockets))


async def _started(config: Config, child: Child) -> None:
    name = child.program.name
    try:
        await child.started()
    except Ended as error:
        raise Ended(f"{name} did not start: {error}", error.code) from None
    if name != SERVER:
        log.info("%s is ready: %s", name, address(config.host, child.program.sockets))


async def _stop(children: Sequence[Child], number: int, drain_s: float) -> None:
    """End the server as ``number`` says, then the services."""
    servers = [child for child in children if child.program.name == SERVER]
    for child in servers:
        await child.stop(number, STOP_S + (drain_s if number == signal.SIGTERM else 0))
    await asyncio.gather(*(child.stop() for child in children if child not in servers))
