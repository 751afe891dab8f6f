"""Replace one method of a library, or refuse to start when the library is not the one that was read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any


class LibraryChanged(RuntimeError):
    """A library is not the one its remedies were written for; the message names what differs."""


def require_versions(versions: Mapping[str, str]) -> None:
    """Check that each library's version starts with the given one ("1.16" matches 1.16.3). Raises LibraryChanged."""
    for name, wanted in versions.items():
        found = metadata.version(name)
        if found != wanted and not found.startswith(wanted + "."):
            raise LibraryChanged(
                f"{name} {found} is installed, but its remedies were written for {wanted}: "
                f"install {name}=={wanted}.*, or read what changed and adapt media_server/hardening*.py"
            )


def require_attributes(thing: Any, *names: str) -> None:
    """Check that ``thing`` still has what a remedy reads. Raises LibraryChanged."""
    for name in names:
        if not hasattr(thing, name):
            raise LibraryChanged(f"{_name(thing)} has no {name!r} any more: read what changed and adapt the remedy")


def replace(owner: Any, name: str, parameters: str, make: Callable[[Any], Callable[..., Any]]) -> None:
    """Set ``owner.name`` to ``make(original)``.

    ``parameters`` are the names of the original's parameters, joined by spaces; where they differ LibraryChanged
    is raised and nothing is replaced.
    """
    require_attributes(owner, name)
    original = getattr(owner, name)
    found = " ".join(inspect.signature(original).parameters)
    if found != parameters:
        raise LibraryChanged(f"{_name(owner)}.{name} takes ({found}), its remedy expects ({parameters})")
    setattr(owner, name, functools.wraps(original)(make(original)))


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", None) or getattr(thing, "__name__", type(thing).__name__))
