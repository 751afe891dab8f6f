"""``vocal-node doctor``: which engines are usable here, and for each that is not, the one thing that is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from pipeline.engines import Kind, Settings

from .engine_list import KINDS, Listed, expected

LIBRARIES = ("aiortc", "aioice", "av", "aiohttp", "uvloop", "numpy", "onnxruntime", "faster-whisper")


def report(settings: Settings) -> str:
    """Return the whole report as text. Loads no model and asks no network."""
    return "\n".join([*_machine(), *(line for kind in KINDS for line in _engines(kind, settings))])


def _machine() -> Iterator[str]:
    yield f"Python {platform.python_version()} on {platform.platform(terse=True)}, {os.cpu_count()} cores"
    yield ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is missing"


def _engines(kind: Kind, settings: Settings) -> Iterator[str]:
    yield ""
    yield f"{KINDS[kind]} (VOCAL_{kind.upper()}={settings.get(f'VOCAL_{kind.upper()}', 'auto')})"
    for engine in expected(kind, settings):
        yield f" {'*' if engine.chosen else ' '} {engine.name:<18} {_state(engine)}"


def _state(engine: Listed) -> str:
    state = f"{'usable':<12}{engine.note}" if engine.usable else f"{'not usable':<12}lacks: {engine.lacks}"
    return f"{state} (only by name)" if engine.by_name_only else state
