"""What a process and its children have used of the CPU, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def used_s(pid: int) -> float | None:
    """Return the seconds, user and system, of a process and all that descend from it; None where there is no /proc.

    Children that have ended are counted with the parent that waited for them.
    """
    if not (PROC / str(pid) / "stat").exists():
        return None
    of = {int(one): fields for one, fields in _processes()}
    ticks = sum(sum(map(int, of[one][11:15])) for one in _family(pid, {one: int(of[one][1]) for one in of}))
    return ticks / os.sysconf("SC_CLK_TCK")


def share(before_s: float | None, after_s: float | None, elapsed_s: float) -> float | None:
    """Return what was used of one core between two readings, in percent."""
    return None if before_s is None or after_s is None else 100 * (after_s - before_s) / elapsed_s


def _family(pid: int, parents: dict[int, int]) -> Iterator[int]:
    if pid in parents:
        yield pid
    for child, parent in parents.items():
        if parent == pid:
            yield from _family(child, parents)


def _processes() -> Iterator[tuple[str, list[str]]]:
    """Yield each process's id and what its stat has after the name (proc_pid_stat(5): state is the third field)."""
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
            yield folder.name, stat.rpartition(")")[2].split()
