"""A caller that only measures: it speaks tones on a 20 ms cadence and notes when sound came back.

It adds no delay of its own: what arrives is decoded in the moment it arrives, and there is no standing buffer. Two
things are random in each turn, as they are with people: the phase of the cadence to the server's clock, and where in a
packet speech begins and ends. A sample's moment is when it was spoken, up to 20 ms before its packet leaves.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
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
TONE_HZ = 300
RAMP_MS = 5
QUIET_S = 0.1
"""So long without sound: the agent has stopped."""
PATH = "/api/offer"
FASTRTC_PATH = "/webrtc/offer"


class Mouth:
    """A microphone's steady frames: a tone while it speaks, silence else (encoded once: callers are many)."""

    format = FORMAT

    def __init__(self, chance: random.Random, now: Callable[[], float] = time.monotonic) -> None:
        self._chance = chance
        self._now = now
        self._clock = FrameClock(FORMAT.ptime_ms, FORMAT.frame_samples)
        self._shift_s = 0.0
        self._next_samples = 0
        self._speech = range(0)
        self.started_s = 0.0
        self.ended = asyncio.Event()
        self.ended_s = 0.0

    def speak(self, seconds: float) -> None:
        """Speak for that long and up to 20 ms more, from somewhere in the next frame on."""
        begin = self._next_samples + self._chance.randrange(FORMAT.frame_samples)
        self._speech = range(
            begin, begin + round(seconds * FORMAT.rate_hz) + self._chance.randrange(FORMAT.frame_samples)
        )
        self.ended.clear()

    def shift(self) -> None:
        """Go on at another phase, up to 20 ms after that of the call's first packet; best while silent."""
        self._shift_s = self._chance.uniform(0, FORMAT.ptime_ms / 1000)

    async def next_frame(self) -> AudioFrame:
        """Return the next frame when it is due; note when speech began and ended."""
        now_s = self._now() - self._shift_s
        wait_s = self._clock.wait_s(now_s, speech=False)
        await asyncio.sleep(max(0.0, wait_s))
        pts = self._clock.tick(self._now() - self._shift_s, speech=False)
        due_s = now_s + wait_s + (pts - self._next_samples) / FORMAT.rate_hz
        self._next_samples = pts + FORMAT.frame_samples
        self._note(due_s + self._shift_s, pts)
        pcm = speech(self._speech, pts)
        return AudioFrame(pcm, FORMAT.rate_hz, pts, silent=not pcm.any())

    def _note(self, due_s: float, pts: int) -> None:
        """A frame is due when its last sample was spoken; that it leaves later makes nobody faster."""
        begin_s = due_s - FORMAT.ptime_ms / 1000
        if pts <= self._speech.start < self._next_samples:
            self.started_s = begin_s + (self._speech.start - pts) / FORMAT.rate_hz
        if not self.ended.is_set() and self._speech.stop <= self._next_samples:
            self.ended_s = begin_s + (self._speech.stop - pts) / FORMAT.rate_hz
            self.ended.set()


def speech(spoken: range, pts: int) -> Pcm:
    """Return the frame at ``pts`` of silence with the samples ``spoken``: a tone that swells and fades within 5 ms.

    (One that ends at once is a click, which a codec spreads over the packet: that would be measured instead.)
    """
    pcm = silence(FORMAT.frame_samples)
    here = np.arange(max(pts, spoken.start), min(pts + FORMAT.frame_samples, spoken.stop))
    from_edge_ms = np.minimum(here + 1 - spoken.start, spoken.stop - here) * 1000 / FORMAT.rate_hz
    gain = np.sin(np.minimum(1, from_edge_ms / RAMP_MS) * np.pi / 2) ** 2
    pcm[here - pts] = gain * np.sin(here * (2 * np.pi * TONE_HZ / FORMAT.rate_hz)) * SPEECH_LEVEL
    return pcm


class Ear:
    """When something arrived, and when it was audible."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.arrivals_s: deque[float] = deque(maxlen=10_000)
        self.onset_s: float | None = None
        self.gaps_s: list[float] = []
        self._last_s: float | None = None
        self._begun = asyncio.Event()

    def push(self, pcm: Pcm) -> None:
        """Take what arrived just now."""
        now_s = self._now()
        if self._last_s is not None:
            self.gaps_s.append(now_s - self._last_s)
        self._last_s = now_s
        if pcm.max(initial=0) > AUDIBLE:
            if not self.arrivals_s or now_s - self.arrivals_s[-1] > QUIET_S:
                self.onset_s = now_s
                self._begun.set()
            self.arrivals_s.append(now_s)

    async def onset_after(self, at_s: float, timeout_s: float = 5.0) -> float | None:
        """Wait for sound that begins, after a while of silence, after ``at_s``; None if there is none.

        An answer that was interrupted and still sounds is not taken for the next.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.onset_s is None or self.onset_s <= at_s:
                    self._begun.clear()
                    await self._begun.wait()
        except TimeoutError:
            return None
        return self.onset_s

    async def quiet(self) -> None:
        """Wait until the agent has been silent for a while."""
        while self.arrivals_s and (left_s := self.arrivals_s[-1] + QUIET_S - self._now()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)

    def last_before_quiet(self, at_s: float) -> float | None:
        """Return the last sound after ``at_s`` before it was quiet for a while; None if it was quiet at ``at_s``."""
        last_s = at_s
        for arrival_s in self.arrivals_s:
            if arrival_s > last_s + QUIET_S:
                break
            last_s = max(last_s, arrival_s)
        return last_s if last_s > at_s else None


@dataclass(frozen=True, slots=True)
class Turn:
    """``response_s``: the last sample was spoken to the first audible packet arrived; None if nothing came.

    ``cut_s``: the first sample was spoken to the last audible packet arrived; None where the agent was not speaking.
    """

    response_s: float | None
    cut_s: float | None


class Caller:
    """A call in progress."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.ear = Ear()
        self.mouth = Mouth(self._chance)
        self.track = PlayoutTrack(self.mouth)

    async def take_turns(
        self, turns: int, speech_s: float = 0.5, pause_s: tuple[float, float] = (0.4, 0.9), *, interrupt: bool = True
    ) -> list[Turn]:
        """Speak ``turns`` times, each time into the answer to the one before, or after its end, at random moments."""
        taken: list[Turn] = []
        for _ in range(turns):
            speaking = interrupt and bool(taken) and taken[-1].response_s is not None
            self.mouth.speak(speech_s)
            await self.mouth.ended.wait()
            first_s = await self.ear.onset_after(self.mouth.ended_s)
            last_s = self.ear.last_before_quiet(self.mouth.started_s)
            cut_s = last_s and last_s - self.mouth.started_s
            taken.append(Turn(first_s and first_s - self.mouth.ended_s, cut_s if speaking else None))
            if not interrupt:
                await self.ear.quiet()
            self.mouth.shift()
            await asyncio.sleep(self._chance.uniform(*pause_s))
        return taken


def offer(sdp: str, path: str) -> dict[str, str]:
    """Return the offer as the server that listens at ``path`` wants it: FastRTC's wants a name for the call, too."""
    described = {"sdp": sdp, "type": "offer"}
    return {**described, "webrtc_id": uuid.uuid4().hex} if path == FASTRTC_PATH else described


async def _answer(url: str, body: dict[str, str]) -> RTCSessionDescription:
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        response.raise_for_status()
        answer = await response.json()
    if "sdp" not in answer:
        raise RuntimeError(f"{url} refused the call: {answer}")
    return RTCSessionDescription(answer["sdp"], answer["type"])


@asynccontextmanager
async def call(url: str, seed: int, relay: Relay | None = None, path: str = PATH) -> AsyncIterator[Caller]:
    """Connect to a server that takes offers at ``path``, through a relay if there is one; hang up on the way out."""
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
        answer = await _answer(f"{url}{path}", offer(relay.as_caller(sdp) if relay else sdp, path))
        sdp = relay.as_server(answer.sdp) if relay else answer.sdp
        await peer.setRemoteDescription(RTCSessionDescription(sdp, answer.type))
        async with asyncio.timeout(10):
            await connected.wait()
        await asyncio.sleep(1.0)
        yield caller
    finally:
        microphone.close()
        await peer.close()
