"""The peer to compare with: aiortc as it comes, with the same rules and a tone for an answer.

``python -m benchmarks.bare_aiortc PORT SILENCE_MS``: after SILENCE_MS of audio without speech the tone starts; 80 ms of
speech stop it. The track is what aiortc's examples do: 24 kHz frames on an absolute schedule.
"""

from __future__ import annotations

import asyncio
import fractions
import sys
import time

import numpy as np
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

RATE_HZ = 24_000
PTIME_S = 0.02
ANSWER_FRAMES = 200
STOP_MS = 80
LOUD = 3_000


class Answer(MediaStreamTrack):
    """Silence, and the tone while ``frames_left``."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.frames_left = 0
        self._start_s: float | None = None
        self._n = 0

    async def recv(self) -> AudioFrame:
        """Return the next frame on schedule."""
        samples = round(RATE_HZ * PTIME_S)
        self._start_s = self._start_s or time.perf_counter()
        await asyncio.sleep(max(0.0, self._start_s + self._n * PTIME_S - time.perf_counter()))
        phase = (np.arange(samples) + self._n * samples) * (2 * np.pi * 440 / RATE_HZ)
        pcm = (np.sin(phase) * 10_000 * (self.frames_left > 0)).astype(np.int16)
        self.frames_left = max(0, self.frames_left - 1)
        frame = AudioFrame.from_ndarray(pcm[None, :], layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._n * samples, fractions.Fraction(1, RATE_HZ)
        self._n += 1
        return frame


async def converse(heard: MediaStreamTrack, answer: Answer, silence_ms: float) -> None:
    """Answer after silence, stop for speech."""
    loud_ms = quiet_ms = 0.0
    spoke = False
    while True:
        try:
            frame = await heard.recv()
        except MediaStreamError:
            return
        assert isinstance(frame, AudioFrame)
        ms = 1000 * frame.samples / frame.sample_rate
        loud = bool(np.abs(frame.to_ndarray().astype(np.int32)).max() > LOUD)
        loud_ms, quiet_ms = (loud_ms + ms, 0.0) if loud else (0.0, quiet_ms + ms)
        if loud_ms >= STOP_MS:
            spoke, answer.frames_left = True, 0
        if spoke and quiet_ms >= silence_ms:
            spoke, answer.frames_left = False, ANSWER_FRAMES


def app(silence_ms: float) -> web.Application:
    """Return a server with the one route."""
    peers: set[RTCPeerConnection] = set()
    tasks: set[asyncio.Task[None]] = set()

    async def offer(request: web.Request) -> web.Response:
        body = await request.json()
        peer, answer = RTCPeerConnection(RTCConfiguration(iceServers=[])), Answer()
        peers.add(peer)

        @peer.on("track")
        def heard(track: MediaStreamTrack) -> None:
            tasks.add(asyncio.ensure_future(converse(track, answer, silence_ms)))

        peer.addTrack(answer)
        await peer.setRemoteDescription(RTCSessionDescription(body["sdp"], body["type"]))
        await peer.setLocalDescription(await peer.createAnswer())
        return web.json_response({"sdp": peer.localDescription.sdp, "type": "answer"})

    server = web.Application()
    server.router.add_post("/api/offer", offer)
    return server


if __name__ == "__main__":
    web.run_app(app(float(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), print=None)
