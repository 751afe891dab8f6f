"""The command line: ``vocal-node serve | call | doctor``.

What a subcommand needs is imported when it runs, so that ``--help`` and mistakes answer at once. Exit codes: 0 done,
1 it did not work out, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SETTINGS = {
    "host": "listen on this address (127.0.0.1)",
    "port": "listen on this port (8000)",
    "vad": "speech detection: an engine's name or auto",
    "stt": "speech-to-text: an engine's name or auto",
    "llm": "language model: an engine's name or auto",
    "tts": "text-to-speech: an engine's name or auto",
    "turn": "end of turn: an engine's name or auto",
    "endpoint-ms": "silence that ends the caller's turn (400)",
    "max-sessions": "refuse further callers beyond these (64)",
    "data-dir": "where agents, voices and caches are kept (data)",
    "log-level": "DEBUG, INFO, WARNING or ERROR (INFO)",
}
"""Options that are the variable ``VOCAL_`` + name by another way; ``media_server.config`` checks the values."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse exits with 2 by itself."""
    args = _parser().parse_args(argv)
    run = {"serve": _serve, "call": _call, "doctor": _doctor}[args.command]
    return run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vocal-node", description="Speak with an AI, in real time.")
    parser.add_argument("--version", action="version", version=f"vocal-node {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="start the server: page and API on http://localhost:8000"))
    _add_call(commands.add_parser("call", help="speak a sound file to a running server and hear its answer"))
    _add_settings(commands.add_parser("doctor", help="tell which engines are usable here, and what the others lack"))
    return parser


def _version() -> str:
    try:
        return version("vocal-node")
    except PackageNotFoundError:
        return "(not installed)"


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any variable of the environment; repeatable"
    )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    for name, text in SETTINGS.items():
        parser.add_argument(f"--{name}", help=text)
    parser.add_argument("--insecure", action="store_const", const="1", help="let other machines in without a key")
    _add_settings(parser)


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
    _add_settings(parser)


def _settings(args: argparse.Namespace) -> dict[str, str]:
    """Merge the command line over the environment over ``.env``. Raises ConfigError."""
    from .config import PREFIX, ConfigError, environment

    settings = environment()
    for pair in args.set:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {pair}: write it as NAME=VALUE")
        settings[name] = value
    for option in (*SETTINGS, "insecure"):
        value = getattr(args, option.replace("-", "_"), None)
        if value is not None:
            settings[PREFIX + option.replace("-", "_").upper()] = value
    return settings


def _fail(message: object, code: int) -> int:
    print(f"vocal-node: {message}", file=sys.stderr)
    return code


def _serve(args: argparse.Namespace) -> int:
    from .config import ConfigError, load

    try:
        config = load(_settings(args))
    except ConfigError as error:
        return _fail(error, 2)
    from . import server
    from .log import configure

    configure(config.log_level, config.log_format)
    try:
        return server.run(config)
    except server.StartFailed as error:
        return _fail(error, 1)


def _call(args: argparse.Namespace) -> int:
    from .config import ConfigError, load

    try:
        settings = _settings(args)
        log_level = load({"VOCAL_LOG_LEVEL": settings.get("VOCAL_LOG_LEVEL", "WARNING")}).log_level
    except ConfigError as error:
        return _fail(error, 2)
    from . import caller
    from .log import configure

    configure(log_level)
    keys = settings.get("VOCAL_API_KEYS", "").split(",")
    plan = caller.Plan(
        file=args.file,
        url=(args.url or f"http://localhost:{settings.get('VOCAL_PORT', '8000')}").rstrip("/"),
        key=args.key or keys[0].strip() or None,
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
        settings = _settings(args)
    except ConfigError as error:
        return _fail(error, 2)
    from .doctor import report

    print(report(settings))
    return 0
