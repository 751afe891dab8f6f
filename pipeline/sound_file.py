"""Decode sound files that strangers send, each in a child process that can do nothing else, and not much of that.

A 10 MB FLAC may hold 135 GB of sound, a WAV 65,535 channels, a playlist the name of a file of ours. The child is
`pipeline.sound_decoder`; this side bounds how many there are, for how long, and how much they may answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from .audio import Pcm
from .errors import EngineError, Overloaded, ProtocolError

log = logging.getLogger(__name__)

DECODER = Path(__file__).with_name("sound_decoder.py")
MAX_CHILDREN = max(2, (os.cpu_count() or 1) // 2)
MAX_WAITING = 32
"""Files that wait for a child, each held in memory meanwhile."""
MAX_WAIT_S = 15.0
PIECE_BYTES = 1 << 20
VERDICT_MAX_BYTES = 4096
PYAV = find_spec("av")
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""What the child may need of the environment, which holds keys that it must not see."""
OVERDONE = tuple(getattr(signal, name) for name in ("SIGXCPU", "SIGALRM", "SIGKILL") if hasattr(signal, name))
"""How the system ends a child that has used up what it was given."""


@dataclass(frozen=True, slots=True)
class SoundLimits:
    """What one file may cost. ``memory_bytes`` is what decoding may take beyond the decoder itself."""

    source_bytes: int = 32 * 1024 * 1024
    duration_s: float = 600.0
    channels: int = 8
    memory_bytes: int = 256 * 1024 * 1024
    cpu_s: int = 20
    wall_s: int = 30


async def decode(
    source: bytes,
    rate_hz: int,
    limits: SoundLimits = SoundLimits(),
    *,
    trim_s: float | None = None,
    param: str = "file",
) -> Pcm:
    """Decode the first audio stream of a file, mono at ``rate_hz``; stop after ``trim_s`` seconds of it.

    Any container and codec that PyAV knows. A video is refused, a cover picture is not. Packets that cannot be decoded
    are left out, gaps between timestamps are closed. A file that holds less than it announces is truncated and refused
    (WAV, AIFF, FLAC, MP4, Matroska); streams that announce nothing (MP3, Ogg, ADTS) are as long as they are.

    Raises ProtocolError (``param``): 400 empty, truncated, absurd; 413 too long or too costly; 415 no sound in it.
    Overloaded when no child comes free in time, EngineError when none can be started. Canceling kills the child.
    """
    if not source:
        raise ProtocolError("the file is empty: send a sound file", param=param)
    if len(source) > limits.source_bytes:
        raise ProtocolError(f"the file is too long: at most {limits.source_bytes} bytes", param=param, status=413)
    duration_s = limits.duration_s if trim_s is None else min(trim_s, limits.duration_s)
    order = {
        "rate_hz": rate_hz,
        "duration_s": duration_s,
        "trim": trim_s is not None,
        "channels": limits.channels,
        "memory_bytes": limits.memory_bytes,
        "cpu_s": limits.cpu_s,
        "wall_s": limits.wall_s,
    }
    answer_bytes = int(duration_s * rate_hz) * 2 + VERDICT_MAX_BYTES
    async with _places().one():
        try:
            async with asyncio.timeout(limits.wall_s):
                answer = await _ask_child(json.dumps(order), source, answer_bytes, param)
        except TimeoutError:
            raise ProtocolError(f"the file takes over {limits.wall_s} s to decode", param=param, status=413) from None
    return _judge(answer, param)


class _Places:
    """The children that may run at once on one event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_CHILDREN)
        self._waiting = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises Overloaded if too many wait already, or none comes free in time."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded("too many sound files are being decoded: try again later")
        self._waiting += 1
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded("too many sound files are being decoded: try again later") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


_PLACES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Places] = WeakKeyDictionary()


def _places() -> _Places:
    return _PLACES.setdefault(asyncio.get_running_loop(), _Places())


async def _ask_child(order: str, source: bytes, answer_bytes: int, param: str) -> bytes:
    async with _child(order) as process:
        await _feed(process, source)
        answer = await _read(process, answer_bytes)
        if len(answer) > answer_bytes:
            raise EngineError("the sound decoder answers more than it was asked for")
        status = await process.wait()
    if status < 0:
        _raise_for_signal(signal.Signals(-status), param)
    if status > 0:
        raise EngineError(f"the sound decoder failed (exit status {status}): see its traceback above")
    return answer


@asynccontextmanager
async def _child(order: str) -> AsyncIterator[Process]:
    """Run the decoder; on the way out it is dead and reaped."""
    try:
        process = await asyncio.create_subprocess_exec(
            # no site, no current folder: the start is cheap, and modules come from where PyAV was found or nowhere
            *(sys.executable, "-S", "-P", str(DECODER), order),
            env=_environment(),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for us to answer
            limit=PIECE_BYTES,
        )
    except OSError as error:
        raise EngineError(f"cannot start the sound decoder: {error.strerror}") from error
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await _read(process, sys.maxsize)  # to the end: or else the pipe stays open
        await process.wait()


def _environment() -> dict[str, str]:
    path = str(Path(PYAV.origin).parent.parent) if PYAV is not None and PYAV.origin is not None else ""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | {"PYTHONPATH": path}


async def _feed(process: Process, source: bytes) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):  # it ended before it had read everything: its status tells why
        for begin in range(0, len(source), PIECE_BYTES):
            process.stdin.write(memoryview(source)[begin : begin + PIECE_BYTES])
            await process.stdin.drain()
    process.stdin.close()


async def _read(process: Process, most_bytes: int) -> bytes:
    assert process.stdout is not None
    answer = bytearray()
    while len(answer) <= most_bytes and (piece := await process.stdout.read(PIECE_BYTES)):
        answer += piece
    return bytes(answer)


def _raise_for_signal(ended_by: signal.Signals, param: str) -> None:
    if ended_by in OVERDONE:
        raise ProtocolError("the file takes too much time or memory to decode", param=param, status=413)
    log.warning("the sound decoder was ended by %s", ended_by.name)
    raise ProtocolError("there is no sound in the file that can be decoded", param=param, status=415)


def _judge(answer: bytes, param: str) -> Pcm:
    line, _, pcm = answer.partition(b"\n")
    verdict = json.loads(line)
    if verdict["status"] != 200:
        raise ProtocolError(f"the file cannot be taken: {verdict['message']}", param=param, status=verdict["status"])
    return np.frombuffer(pcm, "<i2").astype(np.int16, copy=False)
