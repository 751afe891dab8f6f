"""The processes there are: what each is started with, and how the server reaches the others.

Every service is also reached as any other server of its kind is, by its URL, through the engine ``openai_compatible``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line asks for the names alone, and is to answer at once
    from pipeline.engines import Kind, Settings

SERVICES: Mapping[str, Kind] = {"stt": "stt", "chat": "llm", "tts": "tts"}
"""The services that can run alone, and the kind of engine each of them serves."""

SERVER = "server"
REMOTE = "openai_compatible"


def name_of(kind: Kind) -> str:
    """Return the name of the service for a kind of engine."""
    return next(name for name, served in SERVICES.items() if served == kind)


@dataclass(frozen=True, slots=True)
class Program:
    """A process to start: its name in logs, its arguments to ``vocal-node``, its environment, what it listens on."""

    name: str
    arguments: Sequence[str]
    settings: Settings
    sockets: Sequence[socket.socket]

    def command(self) -> list[str]:
        """Return the command line: this Python, whichever way it was found."""
        return [sys.executable, "-m", __package__, *self.arguments]

    def environment(self) -> dict[str, str]:
        """Return our environment with ``settings`` over it, in which this very source is found."""
        environment = {**os.environ, **self.settings, "PYTHONUNBUFFERED": "1"}
        ours = str(Path(__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [ours, environment.get("PYTHONPATH")]))
        return environment


def service(kind: Kind, settings: Settings, sockets: Sequence[socket.socket]) -> Program:
    """Return a service that its operator asked for."""
    return Program(name_of(kind), ["service", name_of(kind)], settings, sockets)


def engine_service_name(kind: Kind, engine: str) -> str:
    """Return the name of the service that runs one engine."""
    return f"{name_of(kind)} {engine}"


def engine_service(kind: Kind, engine: str, settings: Settings, sockets: Sequence[socket.socket]) -> Program:
    """Return a service with one engine for the use of this process alone."""
    own = {variable(kind): engine, "VOCAL_HOST": "127.0.0.1"}
    return Program(engine_service_name(kind, engine), ["service", name_of(kind)], {**settings, **own}, sockets)


def reaching(kind: Kind, url: str, settings: Settings) -> dict[str, str]:
    """Return the settings with which ``openai_compatible`` reaches a service of ours."""
    reached = {"": REMOTE, "_URL": url, "_API_KEY": own_key(settings), "_MODEL": ""}
    return {**settings, **{variable(kind, suffix): value for suffix, value in reached.items()}}


def own_key(settings: Settings) -> str:
    """Return a key that opens what is started with these settings, empty where none is needed."""
    keys = f"{settings.get('VOCAL_API_KEYS', '')},{settings.get('VOCAL_OPERATOR_KEYS', '')}".split(",")
    return next((key.strip() for key in keys if key.strip()), "")


def variable(kind: Kind, suffix: str = "") -> str:
    """Return the variable that names the engine of a kind, or with a suffix another one that is about it."""
    return f"VOCAL_{kind.upper()}{suffix}"
