"""Start the servers that are measured, each in a process of its own, with stand-ins that take no time."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .stand_ins import ANSWER, WORDS

READY_S = 30.0
END_S = 15.0
STAND_INS = {
    "VOCAL_VAD": "energy",
    "VOCAL_STT": "scripted",
    "VOCAL_LLM": "echo",
    "VOCAL_TTS": "tone",
    "VOCAL_TURN": "silence",
    "VOCAL_SCRIPTED_TEXT": WORDS,
    "VOCAL_ECHO_TEXT": ANSWER,
    "VOCAL_LOG_LEVEL": "WARNING",
}


def vocal_node(silence_ms: float, settings: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of this server with the silence rule and all delays zero."""
    environment = {**STAND_INS, "VOCAL_ENDPOINT_MS": f"{silence_ms:g}", **(settings or {})}
    return [sys.executable, "-m", "media_server", "serve", "--port", "{port}"], environment


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs: where it listens, and its process."""

    url: str
    pid: int


@asynccontextmanager
async def running(command: list[str], environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Start a server on a free port, wait until it listens, yield its URL; end it on the way out."""
    async with started(command, environment) as server:
        yield server.url


@asynccontextmanager
async def started(
    command: list[str], environment: Mapping[str, str], ready_s: float = READY_S, core: int | None = None
) -> AsyncIterator[Server]:
    """Start a server, on one core if it is given, as ``running`` does."""
    port = free_port()
    with _on_core(core):  # children inherit it
        process = await asyncio.create_subprocess_exec(
            *[part.replace("{port}", str(port)) for part in command],
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.DEVNULL,
        )
    try:
        await _listening(process, port, ready_s)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the end; some servers wait for their calls, and are not waited for."""
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@contextmanager
def _on_core(core: int | None) -> Iterator[None]:
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def _listening(process: asyncio.subprocess.Process, port: int, ready_s: float) -> None:
    async with asyncio.timeout(ready_s):
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
