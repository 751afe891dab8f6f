"""A client of the raw-PCM WebSocket, as docs/protocol.md describes it, and one that is none too well behaved."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from media_server.app import create_app
from media_server.config import load
from pipeline.audio import SPEECH_RATE_HZ, Pcm

CONFIG = {"agentId": "ada", "userId": "u-1", "agentName": "Ada"}
CHARACTER_MS = 10
"""How long the stand-in voice takes for one: answers are as short as tests are."""
STAND_INS = {
    "VOCAL_VAD": "energy",
    "VOCAL_STT": "scripted",
    "VOCAL_LLM": "echo",
    "VOCAL_TTS": "tone",
    "VOCAL_TURN": "silence",
    "VOCAL_TONE_CHARACTER_MS": str(CHARACTER_MS),
}
WAIT_S = 20.0
"""How long anything may take before a test gives up; a loaded machine needs a part of it."""

Http = TestClient[web.Request, web.Application]


@asynccontextmanager
async def serving(folder: Path, **settings: str) -> AsyncIterator[Http]:
    """Run the whole application in this loop, with the stand-in engines but for what ``settings`` says."""
    config = load({**STAND_INS, "VOCAL_DATA_DIR": str(folder), **settings})
    async with TestClient(TestServer(create_app(config))) as http:
        yield http


class Caller:
    """One connection. ``messages`` is all that came so far; sound is in there, too."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection
        self.messages: list[dict[str, Any]] = []

    async def configure(self, **more: Any) -> None:
        """Send the configuration and wait for ``call_ready``."""
        await self.connection.send_json({**CONFIG, **more})
        assert (await self.next())["type"] == "call_ready"

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send a text message."""
        await self.connection.send_json({"type": kind, **fields})

    async def say(self, pcm: Pcm, piece_bytes: int = 640, *, burst_ms: int = 0) -> None:
        """Send sound as fast as it is spoken, in pieces; ``burst_ms`` of them at a time."""
        sound = pcm.astype("<i2").tobytes()
        burst = max(piece_bytes, burst_ms * SPEECH_RATE_HZ * 2 // 1000)
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for end in range(burst, len(sound) + burst, burst):
            await asyncio.sleep(start_s + end / 2 / SPEECH_RATE_HZ - loop.time())
            part = sound[end - burst : end]
            for begin in range(0, len(part), piece_bytes):
                await self.connection.send_bytes(part[begin : begin + piece_bytes])

    async def next(self) -> dict[str, Any]:
        """Return the next message."""
        async with asyncio.timeout(WAIT_S):  # that of the client itself begins anew with every ping
            message: dict[str, Any] = await self.connection.receive_json()
        self.messages.append(message)
        return message

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages up to and with the next one of a type."""
        came = [await self.next()]
        while came[-1]["type"] != kind:
            came.append(await self.next())
        return came

    async def error(self) -> str:
        """Return what the next message complains of."""
        message = await self.next()
        assert message["type"] == "error", message
        return str(message["error"])

    async def closed(self) -> int | None:
        """Wait until the server closes, with nothing before; return its code."""
        async with asyncio.timeout(WAIT_S):
            message = await self.connection.receive()
        assert message.type is WSMsgType.CLOSE, message
        return self.connection.close_code


@asynccontextmanager
async def calling(http: Http, path: str = "/ws/s1", *, configured: bool = True) -> AsyncIterator[Caller]:
    """Connect, and configure the call unless told otherwise."""
    async with http.ws_connect(path, max_msg_size=0) as connection:
        caller = Caller(connection)
        if configured:
            await caller.configure()
        yield caller


def rtvi(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of them that are RTVI's."""
    return [message for message in messages if message.get("label") == "rtvi-ai"]


def types(messages: list[dict[str, Any]]) -> list[str]:
    """Return their types in order, a run of sound as one."""
    kinds = [message["type"] for message in messages]
    return [kind for n, kind in enumerate(kinds) if kind != "tts_stream" or not n or kinds[n - 1] != kind]


def sound(messages: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the agent's voice in them."""
    chunks = [message["data"]["chunk"] for message in messages if message["type"] == "tts_stream"]
    return np.frombuffer(b"".join(base64.b64decode(chunk) for chunk in chunks), "<f4")


class StubbornCaller:
    """A client on a bare socket, which reads only when told to and answers no ping."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    async def tell(self, message: dict[str, Any]) -> None:
        """Send a text message, masked as RFC 6455 section 5.3 wants it."""
        payload, mask = json.dumps(message).encode(), os.urandom(4)
        head = struct.pack("!BBH", 0x81, 0x80 | 126, len(payload))
        masked = bytes(octet ^ mask[n % 4] for n, octet in enumerate(payload))
        await self._loop.sock_sendall(self._connection, head + mask + masked)

    async def read_all(self) -> bytes:
        """Read until the server closes or resets."""
        octets = b""
        try:
            async with asyncio.timeout(WAIT_S):
                while more := await self._loop.sock_recv(self._connection, 65_536):
                    octets += more
        except ConnectionResetError:
            return octets
        return octets


@asynccontextmanager
async def calling_stubbornly(host: str, port: int) -> AsyncIterator[StubbornCaller]:
    """Connect with a small receive buffer and configure the call, reading nothing but the upgrade."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, (host, port))
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = "GET /ws/stubborn HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        upgrade += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        await loop.sock_sendall(connection, upgrade.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += await loop.sock_recv(connection, 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        caller = StubbornCaller(connection)
        await caller.tell(CONFIG)
        yield caller
