"""Real processes in tests: whether one lives, who its children are, and what it prints."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.canary import sings

ROOT = Path(__file__).parent.parent
WAIT_S = 60.0
"""How long anything may take before a test gives up; a loaded machine needs a part of it."""
STAND_INS = {
    "VOCAL_VAD": "energy",
    "VOCAL_STT": "scripted",
    "VOCAL_LLM": "echo",
    "VOCAL_TTS": "tone",
    "VOCAL_TURN": "silence",
    **{f"VOCAL_{name}": "0" for name in ("PORT", "STT_PORT", "LLM_PORT", "TTS_PORT")},
}


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment without the developer's settings, with stand-ins and ``settings``."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("VOCAL_") and not k.endswith("_API_KEY")}
    return {**inherited, "VOCAL_OFFLINE": "1", **STAND_INS, **(settings or {})}


def lives(pid: int) -> bool:
    """Tell whether a process runs. One that has ended and that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_end(*pids: int) -> None:
    """Wait until none of these processes runs."""
    deadline_s = time.monotonic() + WAIT_S
    while left := [pid for pid in pids if lives(pid)]:
        assert time.monotonic() < deadline_s, f"still there: {left}"
        time.sleep(0.02)


class Printing:
    """A process in a session of its own, and the lines it prints, stdout and stderr together."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._coming: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._coming.put(line.rstrip("\n"))
        self._coming.put(None)

    def line(self, pattern: str) -> re.Match[str]:
        """Return the next line in which ``pattern`` is found."""
        while (line := self._coming.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended without a line like {pattern!r}:\n" + "\n".join(self.lines))

    def end(self) -> int:
        """Wait until it has ended and everything is read; return the exit code."""
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        while (line := self._coming.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
        return code


@contextmanager
def printing(command: Sequence[str], folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Printing]:
    """Run a Python program in ``folder`` and read along; it is killed on the way out if it still runs."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        running = Printing(process)
        try:
            yield running
        finally:
            process.send_signal(signal.SIGKILL)
            running._reader.join(WAIT_S)
        assert not sings("\n".join(running.lines)), "a key was told"
