"""Other frameworks to compare with, each in a virtual environment of its own under ``build/peers``."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "build" / "peers"


@dataclass(frozen=True, slots=True)
class Framework:
    """What pip is to install, pinned."""

    name: str
    requirements: tuple[str, ...]

    @property
    def _folder(self) -> Path:
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self._folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"

    @property
    def installed(self) -> bool:
        """Whether exactly these requirements have been installed."""
        return self._stamp.exists() and self._stamp.read_text().splitlines() == list(self.requirements)

    async def install(self) -> None:
        """Make the environment, once. Raise RuntimeError with pip's last words if that fails."""
        if self.installed:
            return
        print(
            f"installing {', '.join(self.requirements)} into {self._folder}; this takes some minutes, once", flush=True
        )
        await _run(sys.executable, "-m", "venv", "--clear", str(self._folder))
        await _run(str(self.python), "-m", "pip", "install", "--quiet", *self.requirements)
        self._stamp.write_text("\n".join(self.requirements))

    @property
    def _stamp(self) -> Path:
        return self._folder / "installed.txt"


PIPECAT = Framework("pipecat", ("pipecat-ai[webrtc]==1.14.0",))
FASTRTC = Framework("fastrtc", ("fastrtc==0.0.34",))
FRAMEWORKS = {framework.name: framework for framework in (PIPECAT, FASTRTC)}


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed: {said.decode().strip().splitlines()[-1:]}")
