"""A real caller in the same process: it speaks (a tone) when told to, hears, and keeps every message it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from media_server.tracks import Microphone, PlayoutTrack
from pipeline.agents import Agent
from pipeline.audio import AudioFormat, AudioFrame, Pcm
from pipeline.engines import Engines, Kind, load
from pipeline.errors import ProtocolError
from signaling.calls import Calls, Offer
from tests.fakes import LoudnessDetector
from tests.rtc import peer_connection, until

LOUD = 1_000

STAND_INS: tuple[tuple[Kind, str], ...] = (("stt", "scripted"), ("llm", "echo"), ("tts", "tone"))

SCRIPT = {
    "VOCAL_SCRIPTED_TEXT": "hello there",
    "VOCAL_ECHO_TEXT": "You said {text}. I could talk about that for quite some time, if nobody interrupts me.",
}


def stand_ins(**settings: str) -> Engines:
    """Return engines that take no time and cannot understand: scripted words, an echo, a tone."""
    script = {**SCRIPT, **settings}
    return Engines(LoudnessDetector(), *(load(kind, name, script) for kind, name in STAND_INS))


async def find_agent(request: Mapping[str, Any]) -> Agent:
    """Stand in for the catalogue: everybody gets the agent they describe, and "nobody" is known to nobody."""
    if request.get("agent") == "nobody":
        raise ProtocolError("there is no agent 'nobody'", param="agent")
    return Agent("default", request.get("agentName", "Ada"), greeting=request.get("greeting", ""))


class Mouth:
    """Pace 20 ms frames: a tone while ``speaking``, else silence. The agent's has another pitch, lest it be an echo."""

    def __init__(self) -> None:
        self.format = AudioFormat(24_000)
        self.speaking = False
        self.spoken_frames = 0
        self._frame = 0
        self._origin_s: float | None = None

    async def next_frame(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        self._origin_s = loop.time() if self._origin_s is None else self._origin_s
        await asyncio.sleep(self._origin_s + self._frame * 0.02 - loop.time())
        pts, self._frame = self._frame * 480, self._frame + 1
        self.spoken_frames += self.speaking
        phase = np.arange(pts, pts + 480) * 2 * np.pi * 300 / 24_000
        pcm = (np.sin(phase) * (9_000 if self.speaking else 0)).astype(np.int16)
        return AudioFrame(pcm, 24_000, pts, not self.speaking)


class Caller:
    """``direction`` is what it offers; ``data`` whether it opens a data channel."""

    def __init__(self, direction: str = "sendrecv", *, data: bool = True) -> None:
        self.connection: RTCPeerConnection = peer_connection()
        self.mouth = Mouth()
        self.messages: list[dict[str, Any]] = []
        self.loud_samples = 0
        self.call_id = ""
        self.channel: RTCDataChannel | None = None
        self._microphone = Microphone(self._hear)
        track = PlayoutTrack(self.mouth)
        transceiver = self.connection.addTransceiver("audio" if direction == "recvonly" else track, direction)
        track.attach(transceiver.sender)
        self._microphone.attach(transceiver.receiver)
        if data:
            self.channel = self.connection.createDataChannel("chat")
            self.channel.on("message", lambda text: self.messages.append(json.loads(text)))

    def _hear(self, pcm: Pcm) -> None:
        self.loud_samples += int(np.count_nonzero(np.abs(pcm.astype(np.int32)) > LOUD))

    async def offer(self) -> str:
        """Return the offer's SDP, candidates and all."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def take(self, answer: str) -> None:
        """Apply the answer; connecting goes on by itself."""
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def call(self, calls: Calls, **offer: Any) -> None:
        """Offer, take the answer and wait until connected."""
        answer = await calls.accept(Offer(await self.offer(), "127.0.0.1", offer.pop("request", {}), **offer))
        self.call_id = answer.call_id
        await self.take(answer.sdp)
        await until(lambda: self.connection.connectionState == "connected")

    async def say(self, seconds: float = 0.5) -> None:
        """Speak, then be silent."""
        self.mouth.speaking = True
        await asyncio.sleep(seconds)
        self.mouth.speaking = False

    def send(self, kind: str, **data: Any) -> None:
        """Send one RTVI message."""
        assert self.channel is not None
        self.channel.send(json.dumps({"label": "rtvi-ai", "type": kind, "id": "1", "data": data}))

    def kinds(self) -> list[str]:
        """Return the types of the messages so far."""
        return [message["type"] for message in self.messages]

    async def hears(self, kind: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """Wait for a message of this type and return the latest."""
        await until(lambda: kind in self.kinds(), timeout_s)
        return next(message for message in reversed(self.messages) if message["type"] == kind)

    def ice(self) -> Any:
        """Return the library's ICE connection."""
        return self.connection.getTransceivers()[0].receiver.transport.transport._connection

    def vanish(self) -> None:
        """Be gone without a word, as when the battery dies: nothing is sent or received any more."""
        for protocol in self.ice()._protocols:
            protocol.transport.sendto = lambda *_: None  # what its call still has to say goes nowhere
            protocol.transport.abort()

    async def close(self) -> None:
        """Leave as a browser does."""
        self._microphone.close()
        await self.connection.close()
