"""Start the servers that are measured, each in a process of its own, with stand-ins that take no time."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

READY_S = 30.0
STAND_INS = {
    "VOCAL_VAD": "energy",
    "VOCAL_STT": "scripted",
    "VOCAL_LLM": "echo",
    "VOCAL_TTS": "tone",
    "VOCAL_TURN": "silence",
    "VOCAL_ECHO_TEXT": "This is the answer, and it takes a while to say all of it.",
    "VOCAL_LOG_LEVEL": "WARNING",
}


def vocal_node(silence_ms: int, settings: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of this server with the silence rule and all delays zero."""
    environment = {**STAND_INS, "VOCAL_ENDPOINT_MS": str(silence_ms), **(settings or {})}
    return [sys.executable, "-m", "media_server", "serve", "--port", "{port}"], environment


def bare_aiortc(silence_ms: int) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of the bare aiortc server with the same rule."""
    return [sys.executable, "-m", "benchmarks.bare_aiortc", "{port}", str(silence_ms)], {}


@asynccontextmanager
async def running(command: list[str], environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Start a server on a free port, wait until it listens, yield its URL; end it on the way out."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *[part.replace("{port}", str(port)) for part in command],
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await _listening(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def free_port() -> int:
    """Return a port nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(READY_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            await writer.wait_closed()
            return
    raise RuntimeError(f"the server ended with code {process.returncode} before it listened")


def machine() -> str:
    """Say what this was measured on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {system}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
