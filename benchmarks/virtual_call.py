"""A whole call in virtual time over a lossy network: exact to the millisecond, whatever else the machine does.

Caller and server are joined by two networks; between them are the real encoder, microphone, session and playout on one
event loop whose clock jumps, and stand-ins that take no time in place of the models.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import numpy as np

from media_server import opus
from media_server.codecs import CODECS
from media_server.tracks import Microphone
from pipeline.agents import Agent
from pipeline.audio import AudioFormat, AudioFrame, Pcm, silence
from pipeline.engines import Engines, load
from pipeline.playout import Playout
from pipeline.session import Session
from tests import fakes

from . import virtual_time
from .network import PACKET_S, Conditions, Network
from .receive_path import PAYLOAD_TYPE, rtp

FORMAT = AudioFormat(24_000)
PHASE_S = 0.007
"""The caller's frames begin so long after the server's."""
SPEECH_FRAMES, PAUSE_FRAMES = 40, 120
AUDIBLE = 500
OPUS = {PAYLOAD_TYPE: CODECS["audio/opus"]}


class _Way:
    """One direction: frames are encoded, packets go through a network, a microphone hears them."""

    def __init__(self, conditions: Conditions, seed: int, push: Callable[[Pcm], None], rate_hz: int) -> None:
        self.microphone = Microphone(push, rate_hz)
        self.microphone.start(OPUS)
        self._network = Network(conditions, seed)
        self._encoder = opus.OpusEncoder(FORMAT.rate_hz)

    def send(self, frame: AudioFrame) -> None:
        """Send one frame's packet."""
        packet = rtp(frame.pts // FORMAT.frame_samples, [self._encoder.encode(frame)])
        for delay_s in self._network.delays_s():
            asyncio.get_running_loop().call_later(delay_s, self.microphone.receive, packet)


def responses_ms(conditions: Conditions, seed: int, turns: int) -> list[float | None]:
    """Return each turn's response latency, from the caller's last frame to the first sound; None without an answer."""
    return virtual_time.run(_call(conditions, seed, turns))


async def _call(conditions: Conditions, seed: int, turns: int) -> list[float | None]:
    loop, playout, heard_s = asyncio.get_running_loop(), Playout(FORMAT), list[float]()

    def hear(pcm: Pcm) -> None:
        if pcm.max(initial=0) > AUDIBLE:
            heard_s.append(loop.time())

    async def serve(way: _Way) -> None:
        while True:
            way.send(await playout.next_frame())

    async with Session(Agent("a", "A"), _engines(), playout) as session:
        up = _Way(conditions, 2 * seed, session.push_audio, 16_000)
        down = _Way(conditions, 2 * seed + 1, hear, 8_000)
        server = asyncio.create_task(serve(down))
        try:
            return await _take_turns(up, heard_s, turns, random.Random(seed))
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            up.microphone.close()
            down.microphone.close()


async def _take_turns(up: _Way, heard_s: list[float], turns: int, rng: random.Random) -> list[float | None]:
    loop, frame = asyncio.get_running_loop(), 0
    start_s = loop.time() + PHASE_S

    async def say(frames: int, *, loud: bool) -> None:
        nonlocal frame
        for _ in range(frames):
            await asyncio.sleep(max(0.0, start_s + frame * PACKET_S - loop.time()))
            pts = frame * FORMAT.frame_samples
            pcm = _tone(pts) if loud else silence(FORMAT.frame_samples)
            up.send(AudioFrame(pcm, FORMAT.rate_hz, pts, silent=not loud))
            frame += 1

    taken: list[float | None] = []
    await say(50, loud=False)
    for _ in range(turns):
        await say(SPEECH_FRAMES, loud=True)
        ended_s = loop.time()
        heard_s.clear()
        await say(PAUSE_FRAMES + rng.randrange(20), loud=False)
        taken.append((heard_s[0] - ended_s) * 1000 if heard_s else None)
    return taken


def _engines() -> Engines:
    voice = load("tts", "tone", {})  # the fakes' own is a constant, of which Opus leaves nothing
    return Engines(fakes.LoudnessDetector(), fakes.FakeStt(), fakes.FakeLlm("One two three."), voice)


def _tone(pts: int) -> Pcm:
    phase = (np.arange(FORMAT.frame_samples) + pts) * (2 * np.pi * 300 / FORMAT.rate_hz)
    tone: Pcm = (np.sin(phase) * 12_000).astype(np.int16)
    return tone
