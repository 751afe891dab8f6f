"""The command line: ``vocal-node serve | service | call | doctor | models``.

What a subcommand needs is imported when it runs, so that ``--help`` and mistakes answer at once. Exit codes: 0 done,
1 it did not work out, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import version
from .parentage import Parent, inherit
from .services import REMOTE, SERVICES, own_key, variable

if TYPE_CHECKING:
    from pipeline.engines import Kind

SETTINGS = {
    "host": "listen on this address (127.0.0.1)",
    "port": "listen on this port (8000)",
    "vad": "speech detection: an engine's name or auto",
    "stt": "speech-to-text: an engine's name or auto",
    "llm": "language model: an engine's name or auto",
    "tts": "text-to-speech: an engine's name or auto",
    "turn": "end of turn: an engine's name or auto",
    "endpoint-ms": "silence that ends a turn of which nobody knows whether it is over (400)",
    "max-sessions": "refuse further callers beyond these (64)",
    "data-dir": "where agents, voices and caches are kept (data)",
    "log-level": "DEBUG, INFO, WARNING or ERROR (INFO)",
}
"""Options that are the variable ``VOCAL_`` + name by another way; ``media_server.config`` checks the values."""

INTERRUPTED = 130
"""The exit code of what Ctrl-C ended before it could end by itself: 128 and the signal's number."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse exits with 2 by itself."""
    try:
        parent = inherit()
        args = _parser().parse_args(argv)
        match args.command:
            case "serve" | "service":
                return _serve(args, parent)
            case "call":
                return _call(args)
            case "models":
                return _models(args)
            case _:
                return _doctor(args)
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vocal-node", description="Speak with an AI, in real time.")
    parser.add_argument("--version", action="version", version=f"vocal-node {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="start the server: page and API on http://localhost:8000"))
    _add_service(commands.add_parser("service", help="start one service alone, on a port of its own"))
    _add_call(commands.add_parser("call", help="speak a sound file to a running server and hear its answer"))
    _add_doctor(commands.add_parser("doctor", help="tell which engines are usable here, and what the others lack"))
    _add_models(commands.add_parser("models", help="list the models that engines load, and fetch them"))
    return parser


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add the option that sets any variable."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any variable of the environment; repeatable"
    )


def add_offline(parser: argparse.ArgumentParser) -> None:
    """Add the option that forbids downloads."""
    parser.add_argument("--offline", action="store_const", const="1", help="download no model: use what is here")


def _add_serve(parser: argparse.ArgumentParser, options: Iterable[str] = SETTINGS) -> None:
    for name in options:
        parser.add_argument(f"--{name}", help=SETTINGS[name])
    parser.add_argument("--insecure", action="store_const", const="1", help="let other machines in without a key")
    add_offline(parser)
    add_set(parser)


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", choices=list(SERVICES), help="which one")
    parser.add_argument("--port", help="listen on this port (8001 for stt, 8002 for chat, 8003 for tts)")
    _add_serve(parser, ("host", "data-dir", "log-level"))


def _add_call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="speech, in any container and codec PyAV decodes")
    parser.add_argument("--url", help="the server (http://localhost:8000)")
    parser.add_argument("--key", help="the server's key (the first of VOCAL_API_KEYS)")
    parser.add_argument("--agent", help="the id of the agent to speak with")
    parser.add_argument("--out", type=Path, metavar="WAV", help="write what the agent said to this file")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="say it N times, each after the answer (1)")
    parser.add_argument(
        "--interrupt-after", type=float, metavar="S", help="say it again S seconds into the first answer"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="longest wait for an answer (30)")
    add_set(parser)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    add_offline(parser)
    add_set(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    lister = actions.add_parser("list", help="tell which models the engines would run here, and where they are")
    lister.add_argument("--json", action="store_true", help="as JSON")
    fetcher = actions.add_parser("fetch", help="download a model into the cache; goes on where it was")
    fetcher.add_argument("engine", metavar="ENGINE", help="faster_whisper, transformers, xtts: see `models list`")
    fetcher.add_argument("model", metavar="MODEL", nargs="?", default="", help="another one than the settings name")
    fetcher.add_argument("--accept-license", action="store_true", help="accept the licence of a model that asks for it")
    for action in (lister, fetcher):
        add_offline(action)
        add_set(action)


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    """Merge the command line over the environment over ``.env``. Raises ConfigError."""
    from .config import PREFIX, ConfigError, environment

    settings = environment()
    for pair in args.set:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {pair}: write it as NAME=VALUE")
        settings[name] = value
    for option in (*SETTINGS, "insecure", "offline"):
        value = getattr(args, option.replace("-", "_"), None)
        if value is not None:
            settings[PREFIX + option.replace("-", "_").upper()] = value
    if getattr(args, "port", None) and args.command == "service":
        settings[variable(SERVICES[args.service], "_PORT")] = args.port
    return settings


def _fail(message: object, code: int) -> int:
    print(f"vocal-node: {message}", file=sys.stderr)
    return code


def _serve(args: argparse.Namespace, parent: Parent | None) -> int:
    from .config import ConfigError, load

    kind = SERVICES[args.service] if args.command == "service" else None
    try:
        settings = settings_of(args)
        config = load(_of_service(kind, settings) if kind else settings)
    except ConfigError as error:
        return _fail(error, 2)
    from . import server
    from .log import configure
    from .sockets import StartFailed

    configure(config.log_level, config.log_format)
    try:
        return server.run(config, kind, parent)
    except StartFailed as error:
        return _fail(error, 1)


def _of_service(kind: Kind, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a service alone. Raises ConfigError.

    It is not told where the server reaches it, or it would ask itself, without end.
    """
    from .config import ConfigError

    if settings.get(variable(kind)) == REMOTE:
        raise ConfigError(f"{variable(kind)}={REMOTE} is for the server: a service runs an engine of its own")
    return {name: value for name, value in settings.items() if name != variable(kind, "_URL")}


def _call(args: argparse.Namespace) -> int:
    from .config import ConfigError, load

    try:
        settings = settings_of(args)
        log_level = load({"VOCAL_LOG_LEVEL": settings.get("VOCAL_LOG_LEVEL", "WARNING")}).log_level
    except ConfigError as error:
        return _fail(error, 2)
    from . import caller
    from .log import configure

    configure(log_level)
    plan = caller.Plan(
        file=args.file,
        url=(args.url or f"http://localhost:{settings.get('VOCAL_PORT', '8000')}").rstrip("/"),
        key=args.key or own_key(settings) or None,
        agent=args.agent,
        out=args.out,
        repeat=max(1, args.repeat),
        interrupt_after_s=args.interrupt_after,
        timeout_s=args.timeout,
    )
    try:
        return caller.run(plan)
    except caller.CallFailed as error:
        return _fail(error, 1)


def _doctor(args: argparse.Namespace) -> int:
    from .config import ConfigError

    try:
        settings = settings_of(args)
    except ConfigError as error:
        return _fail(error, 2)
    from .doctor import report

    print(report(settings))
    return 0


def _models(args: argparse.Namespace) -> int:
    from pipeline.errors import EngineUnavailable
    from pipeline.models import of

    from . import models
    from .config import ConfigError

    try:
        settings = settings_of(args)
    except ConfigError as error:
        return _fail(error, 2)
    if args.action == "list":
        print(models.listing(settings, as_json=args.json))
        return 0
    try:
        model = of(args.engine, args.model, settings)
    except EngineUnavailable as error:
        return _fail(f"models fetch needs {error}", 2)
    try:
        folder = models.fetch(model, settings, accept=args.accept_license)
    except EngineUnavailable as error:
        return _fail(f"cannot fetch {model.name}: it needs {error}", 1)
    except KeyboardInterrupt:
        return _fail("stopped; the same command goes on where it was", INTERRUPTED)
    print(folder)
    return 0
