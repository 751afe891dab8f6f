"""A caller that only measures: it speaks tones on a fixed 20 ms cadence and notes when sound came back.

It adds no delay of its own: what arrives is decoded in the moment it arrives, and there is no standing buffer. Its
cadence starts wherever it starts, so calls meet the server's clock at a random phase.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from media_server import hardening
from media_server.tracks import Microphone, PlayoutTrack
from pipeline.audio import VOICE_RATE_HZ, AudioFormat, AudioFrame, Pcm, silence
from pipeline.clock import FrameClock

from .relay import Relay

FORMAT = AudioFormat(VOICE_RATE_HZ)
AUDIBLE = 500
SPEECH_LEVEL = 12_000
QUIET_S = 0.1
"""So long without sound: the agent has stopped."""


class Mouth:
    """A microphone's steady frames: a tone while it speaks, silence else (encoded once: callers are many)."""

    format = FORMAT

    def __init__(self) -> None:
        self._clock = FrameClock(FORMAT.ptime_ms, FORMAT.frame_samples)
        self._frames_left = 0
        self.started_s = 0.0
        self.ended = asyncio.Event()
        self.ended_s = 0.0

    def speak(self, seconds: float) -> None:
        """Speak from the next frame on."""
        self._frames_left = round(seconds * 50)
        self.started_s = 0.0
        self.ended.clear()

    async def next_frame(self) -> AudioFrame:
        """Return the next frame when it is due; note when speech begins and ends to leave."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._clock.wait_s(loop.time(), speech=False)))
        pts = self._clock.tick(loop.time(), speech=False)
        if not self._frames_left:
            return AudioFrame(silence(FORMAT.frame_samples), VOICE_RATE_HZ, pts, silent=True)
        self._frames_left -= 1
        self.started_s = self.started_s or loop.time()
        if not self._frames_left:
            self.ended_s = loop.time()
            self.ended.set()
        return AudioFrame(_tone(pts), VOICE_RATE_HZ, pts)


def _tone(pts: int) -> Pcm:
    phase = (np.arange(FORMAT.frame_samples) + pts) * (2 * np.pi * 300 / VOICE_RATE_HZ)
    tone: Pcm = (np.sin(phase) * SPEECH_LEVEL).astype(np.int16)
    return tone


class Ear:
    """When something arrived, and when it was audible."""

    def __init__(self) -> None:
        self.arrivals_s: deque[float] = deque(maxlen=10_000)
        self.gaps_s: list[float] = []
        self._last_s: float | None = None
        self._heard = asyncio.Event()

    def push(self, pcm: Pcm) -> None:
        """Take what arrived just now."""
        now_s = asyncio.get_running_loop().time()
        if self._last_s is not None:
            self.gaps_s.append(now_s - self._last_s)
        self._last_s = now_s
        if pcm.max(initial=0) > AUDIBLE:
            self.arrivals_s.append(now_s)
            self._heard.set()

    async def first_after(self, at_s: float, timeout_s: float = 5.0) -> float | None:
        """Wait for the first sound that arrives after ``at_s``; None if there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.arrivals_s or self.arrivals_s[-1] <= at_s:
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            return None
        return next(t for t in self.arrivals_s if t > at_s)

    async def quiet(self) -> None:
        """Wait until the agent has been silent for a while."""
        loop = asyncio.get_running_loop()
        while self.arrivals_s and (left_s := self.arrivals_s[-1] + QUIET_S - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)

    def last_before_quiet(self, at_s: float) -> float:
        """Return the last sound after ``at_s`` before it was quiet for a while; ``at_s`` if there was none."""
        last_s = at_s
        for arrival_s in self.arrivals_s:
            if arrival_s > last_s + QUIET_S:
                break
            last_s = max(last_s, arrival_s)
        return last_s


@dataclass(frozen=True, slots=True)
class Turn:
    """``response_s``: the last sample of speech left to the first audible packet arrived; None if nothing came.

    ``cut_s``: the caller's onset left to the last audible packet arrived; None where the agent was not speaking.
    """

    response_s: float | None
    cut_s: float | None


class Caller:
    """A call in progress."""

    def __init__(self, seed: int) -> None:
        self.ear = Ear()
        self.mouth = Mouth()
        self.track = PlayoutTrack(self.mouth)
        self._random = random.Random(seed)

    async def take_turns(self, turns: int, speech_s: float = 0.5, *, interrupt: bool = True) -> list[Turn]:
        """Speak ``turns`` times, each time into the answer to the one before, or after its end, at random moments."""
        taken: list[Turn] = []
        for _ in range(turns):
            speaking = interrupt and bool(taken) and taken[-1].response_s is not None
            self.mouth.speak(speech_s)
            await self.mouth.ended.wait()
            first_s = await self.ear.first_after(self.mouth.ended_s)
            cut_s = self.ear.last_before_quiet(self.mouth.started_s) - self.mouth.started_s if speaking else None
            taken.append(Turn(first_s and first_s - self.mouth.ended_s, cut_s))
            if not interrupt:
                await self.ear.quiet()
            await asyncio.sleep(self._random.uniform(0.4, 0.9))
        return taken


@asynccontextmanager
async def call(url: str, seed: int, relay: Relay | None = None) -> AsyncIterator[Caller]:
    """Connect to a server that answers ``POST /api/offer``, through a relay if there is one; hang up on the way out."""
    hardening.apply()
    caller = Caller(seed)
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    microphone = Microphone(caller.ear.push, 8_000)  # enough to hear a tone, and cheap: callers are many
    connected = asyncio.Event()
    peer.on("connectionstatechange", lambda: connected.set() if peer.connectionState == "connected" else None)
    caller.track.attach(peer.addTrack(caller.track))
    microphone.attach(peer.getTransceivers()[0].receiver)
    peer.createDataChannel("rtvi-ai")
    try:
        await peer.setLocalDescription(await peer.createOffer())
        sdp = peer.localDescription.sdp
        offer = {"sdp": relay.as_caller(sdp) if relay else sdp, "type": "offer"}
        async with aiohttp.ClientSession() as http, http.post(f"{url}/api/offer", json=offer) as response:
            response.raise_for_status()
            answer = await response.json()
        sdp = relay.as_server(answer["sdp"]) if relay else answer["sdp"]
        await peer.setRemoteDescription(RTCSessionDescription(sdp, answer["type"]))
        async with asyncio.timeout(10):
            await connected.wait()
        await asyncio.sleep(1.0)
        yield caller
    finally:
        microphone.close()
        await peer.close()
