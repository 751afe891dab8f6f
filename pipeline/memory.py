"""How much memory a model may still take on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import EngineUnavailable

GIB = 1 << 30


def free_bytes() -> float:
    """Return the memory that a process may still take, outside a GPU. Reads /proc, which is memory."""
    return min(_available_bytes(Path("/proc/meminfo")), _container_bytes(Path("/sys/fs/cgroup")))


def require(name: str, needs_bytes: float, has_bytes: float, where: str, instead: str) -> None:
    """Raise EngineUnavailable, which says how much ``name`` needs and how much there is, where it does not fit."""
    if needs_bytes > has_bytes:
        figures = f"{needs_bytes / GIB:.1f} GiB on {where}, {has_bytes / GIB:.1f} GiB are free"
        raise EngineUnavailable(f"memory: {name} needs {figures}; {instead}")


def _available_bytes(meminfo: Path) -> int:
    """Read what Linux says; where there is none, the size of all memory must do."""
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _container_bytes(cgroup: Path) -> float:
    """Read what a container's limit leaves (cgroup v2, https://docs.kernel.org/admin-guide/cgroup-v2.html)."""
    try:
        most, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return int(most) - int(used)
    except (OSError, ValueError):  # no limit ("max"), or no cgroup v2
        return float("inf")
