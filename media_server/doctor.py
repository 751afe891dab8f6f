"""``vocal-node doctor``: which engines are usable here, and for each that is not, the one thing that is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from pipeline.engines import Kind, Settings, Usable, usable

KINDS: dict[Kind, str] = {
    "vad": "speech detection",
    "stt": "speech-to-text",
    "llm": "language model",
    "tts": "text-to-speech",
    "turn": "end of turn",
}
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
    described = usable(kind, settings)
    wanted = settings.get(f"VOCAL_{kind.upper()}", "auto")
    chosen = next((name for name, found in described if found.lacks is None and found.rank >= 0), None)
    yield ""
    yield f"{KINDS[kind]} (VOCAL_{kind.upper()}={wanted})"
    for name, found in described:
        mark = "*" if name == (chosen if wanted == "auto" else wanted) else " "
        yield f" {mark} {name:<18} {_state(found)}"


def _state(found: Usable) -> str:
    state = f"{'usable':<12}{found.note}" if found.lacks is None else f"{'not usable':<12}lacks: {found.lacks}"
    return state if found.rank >= 0 else f"{state} (only by name)"
