"""The caller's way in: SmallWebRTC's signalling, one connection, RTVI on its data channel."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)

from pipeline.playout import Playout

from . import hardening
from .caller_audio import Ear
from .tracks import Microphone, PlayoutTrack

log = logging.getLogger(__name__)

HTTP_S = 15.0
CONNECT_S = 15.0
MAX_MESSAGES = 1_000

CLOSED = "link-closed"
"""The type of the message that says that there will be no more."""


class CallFailed(Exception):
    """Say in one line why the call did not work out."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call."""

    url: str
    key: str | None
    agent: str | None


class Link:
    """A call in progress: use as ``async with``; on the way out the server knows that it is over."""

    def __init__(self, target: Target, mouth: Playout, ear: Ear) -> None:
        self._target = target
        self._mouth = mouth
        self._microphone = Microphone(lambda pcm: ear.push(pcm, asyncio.get_running_loop().time()), ear.rate_hz)
        self._messages: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(MAX_MESSAGES)
        self._ready = asyncio.Event()
        self._call_id: str | None = None
        self._peer: RTCPeerConnection | None = None

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._target.key}"} if self._target.key else {}
        self._http = aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(HTTP_S))
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up and leave nothing behind; a server that is gone already is no fault."""
        try:
            if self._call_id is not None:
                await self._request("DELETE", f"/api/offer/{self._call_id}")
        except CallFailed as error:
            log.debug("hanging up: %s", error)
        finally:
            await self._close_peer()
            await self._http.close()

    async def next_message(self, timeout_s: float) -> Mapping[str, Any] | None:
        """Return the next RTVI message, None if there is none for ``timeout_s``. Raises CallFailed once it ended."""
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._messages.get()
        except TimeoutError:
            return None
        if message["type"] == CLOSED:
            raise CallFailed(str(message["data"]))
        return message

    # --- signalling

    async def _connect(self) -> None:
        hardening.apply()
        started = await self._request("POST", "/start", {"enableDefaultIceServers": True, "body": {}})
        peer = self._peer = self._open_peer((started.get("iceConfig") or {}).get("iceServers") or [])
        await peer.setLocalDescription(await peer.createOffer())
        answer = await self._request("POST", "/api/offer", self._offer(peer.localDescription))
        try:
            self._call_id = str(answer["pc_id"])
            await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        except (KeyError, ValueError) as error:
            raise CallFailed(f"{self._target.url} does not answer like Vocal Node: {error!r}") from None
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._ready.wait()
        except TimeoutError:
            raise CallFailed(
                f"no media path to {self._target.url} within {CONNECT_S:g} s: UDP may be blocked"
            ) from None

    def _offer(self, local: RTCSessionDescription) -> dict[str, Any]:
        request_data = {"agent": self._target.agent} if self._target.agent else {}
        return {"sdp": local.sdp, "type": local.type, "request_data": request_data}

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the server; raises CallFailed with what a person can do about it."""
        url = self._target.url
        try:
            async with self._http.request(method, url + path, json=body) as response:
                if response.ok:
                    return dict(await response.json())
                raise CallFailed(await self._refusal(response))
        except aiohttp.InvalidURL:
            raise CallFailed(f"{url} is no address of a server: write it as http://localhost:8000") from None
        except (aiohttp.ClientConnectionError, TimeoutError):
            raise CallFailed(f"nothing answers at {url}: is the server running? (make run)") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise CallFailed(f"{url} does not speak like Vocal Node: {error}") from None

    async def _refusal(self, response: aiohttp.ClientResponse) -> str:
        reason = _reason(await response.text())
        match response.status:
            case 401:
                wrong = "does not know this key" if self._target.key else "wants a key"
                return f"{self._target.url} {wrong}: give it with --key or VOCAL_API_KEYS"
            case 503:
                again = response.headers.get("Retry-After", "a few")
                return f"{self._target.url} is full: try again in {again} s ({reason})"
            case status:
                return f"{self._target.url} refused the call: {reason} ({status})"

    # --- the connection

    def _open_peer(self, ice_servers: list[Mapping[str, Any]]) -> RTCPeerConnection:
        servers = [RTCIceServer(s["urls"], s.get("username"), s.get("credential")) for s in ice_servers]
        peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        track = PlayoutTrack(self._mouth)
        track.attach(peer.addTrack(track))
        self._microphone.attach(peer.getTransceivers()[0].receiver)
        peer.on("connectionstatechange", lambda: self._connection_changed(peer.connectionState))
        channel = peer.createDataChannel("rtvi-ai", ordered=True)
        channel.on("open", lambda: _greet(channel))
        channel.on("message", self._received)
        channel.on("close", lambda: self._end("the server ended the call"))
        return peer

    async def _close_peer(self) -> None:
        self._microphone.close()
        if self._peer is not None:
            await self._peer.close()

    def _connection_changed(self, state: str) -> None:
        if state == "failed":
            self._end("the connection was lost")

    def _received(self, text: str | bytes) -> None:
        try:
            message = json.loads(text)
            kind = message["type"]
        except (ValueError, KeyError, TypeError) as error:
            log.debug("not a message: %s", error)
            return
        log.debug("received %s", kind)
        if kind == "bot-ready":
            self._ready.set()
        elif message.get("label") == "rtvi-ai":
            self._put(message)
        elif kind == "signalling":
            self._end("the server ended the call")

    def _put(self, message: Mapping[str, Any]) -> None:
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("dropped a message of type %s: %d wait already", message["type"], MAX_MESSAGES)

    def _end(self, reason: str) -> None:
        self._put({"type": CLOSED, "data": reason})


def _greet(channel: RTCDataChannel) -> None:
    about = {"version": "2.1.0", "about": {"library": "vocal-node call"}}
    channel.send(json.dumps({"label": "rtvi-ai", "type": "client-ready", "id": "1", "data": about}))


def _reason(body: str) -> str:
    """Return the message of an error in the server's one shape, else the beginning of what came."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.strip()[:200] or "no reason given"
