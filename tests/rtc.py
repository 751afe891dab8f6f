"""Two real peers in one process, and what the event loop complained about."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack

from media_server import hardening


def peer_connection() -> RTCPeerConnection:
    """Return a hardened connection that asks no public server anything."""
    hardening.apply()
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def until(condition: Any, timeout_s: float = 30.0) -> None:
    """Wait until ``condition()`` is true; asserts that it becomes so in time."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s, "it did not happen in time"
        await asyncio.sleep(0.01)


async def negotiate(caller: RTCPeerConnection, callee: RTCPeerConnection) -> None:
    """Exchange offer and answer; the connection is not awaited."""
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(caller.localDescription)
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(callee.localDescription)


@asynccontextmanager
async def pair(caller: RTCPeerConnection | None = None) -> AsyncIterator[tuple[RTCPeerConnection, RTCPeerConnection]]:
    """Yield a caller and a callee, connected, with the caller's audio (silence) and a data channel named "test"."""
    caller, callee = caller or peer_connection(), peer_connection()
    try:
        caller.addTrack(AudioStreamTrack())
        caller.createDataChannel("test")
        await negotiate(caller, callee)
        await until(lambda: callee.connectionState in ("connected", "failed"))
        assert callee.connectionState == caller.connectionState == "connected"
        yield caller, callee
    finally:
        await caller.close()
        await callee.close()


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect what reaches the loop's exception handler, among it exceptions of tasks that nobody awaited."""
    loop = asyncio.get_running_loop()
    found: list[str] = []
    loop.set_exception_handler(lambda _, context: found.append(f"{context['message']}: {context.get('exception')!r}"))
    try:
        yield found
        gc.collect()
    finally:
        loop.set_exception_handler(None)
