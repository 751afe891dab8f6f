"""The RTC plane, the process, and the composition root."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version. Reads files."""
    try:
        return metadata.version("vocal-node")
    except metadata.PackageNotFoundError:
        return "(not installed)"
