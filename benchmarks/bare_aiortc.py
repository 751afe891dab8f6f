"""The peer to compare with: aiortc as it comes, with the same rules and a tone for an answer.

``python -m benchmarks.bare_aiortc PORT RULES...``: once the caller is done, and the models would be, one after the
other, the tone starts; speech stops it. The track is what aiortc's examples do: 24 kHz frames on an absolute schedule.
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
from numpy.typing import NDArray

from .stand_ins import ANSWER_S, Hearing, Rules, tone

RATE_HZ = 24_000
PTIME_S = 0.02
DECODED_HZ = 48_000


class Answer(MediaStreamTrack):
    """Silence, and the tone from ``begin`` on, until its end or ``stop``."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames_left = 0
        self._start_s: float | None = None
        self._n = 0
        self._thinking: asyncio.Task[None] | None = None

    def begin(self, after_s: float) -> None:
        """Answer, as soon as the models have."""
        self.stop_answer()
        self._thinking = asyncio.ensure_future(self._answer(after_s))

    def stop_answer(self) -> None:
        """Be silent from the next frame on."""
        self._frames_left = 0
        if self._thinking is not None:
            self._thinking.cancel()

    async def _answer(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._frames_left = round(ANSWER_S / PTIME_S)

    async def recv(self) -> AudioFrame:
        """Return the next frame on schedule."""
        samples = round(RATE_HZ * PTIME_S)
        self._start_s = self._start_s or time.perf_counter()
        await asyncio.sleep(max(0.0, self._start_s + self._n * PTIME_S - time.perf_counter()))
        pcm = tone(RATE_HZ, self._n * PTIME_S, PTIME_S) if self._frames_left else np.zeros(samples, np.int16)
        self._frames_left = max(0, self._frames_left - 1)
        frame = AudioFrame.from_ndarray(pcm[None, :], layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._n * samples, fractions.Fraction(1, RATE_HZ)
        self._n += 1
        return frame


async def converse(heard: MediaStreamTrack, answer: Answer, rules: Rules) -> None:
    """Answer after silence, stop for speech."""
    hearing = Hearing(rules, DECODED_HZ)
    while True:
        try:
            frame = await heard.recv()
        except MediaStreamError:
            return
        assert isinstance(frame, AudioFrame)
        for became in hearing.push(_mono(frame)):
            if became == "speech":
                answer.stop_answer()
            elif became == "over":
                answer.begin(rules.models_ms / 1000)


def _mono(frame: AudioFrame) -> NDArray[np.int16]:
    """Return the first channel of packed int16."""
    return frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0].astype(np.int16)


def app(rules: Rules) -> web.Application:
    """Return a server with the one route."""
    peers: set[RTCPeerConnection] = set()
    tasks: set[asyncio.Task[None]] = set()

    async def offer(request: web.Request) -> web.Response:
        body = await request.json()
        peer, answer = RTCPeerConnection(RTCConfiguration(iceServers=[])), Answer()
        peers.add(peer)

        @peer.on("track")
        def heard(track: MediaStreamTrack) -> None:
            tasks.add(asyncio.ensure_future(converse(track, answer, rules)))

        peer.addTrack(answer)
        await peer.setRemoteDescription(RTCSessionDescription(body["sdp"], body["type"]))
        await peer.setLocalDescription(await peer.createAnswer())
        return web.json_response({"sdp": peer.localDescription.sdp, "type": "answer"})

    server = web.Application()
    server.router.add_post("/api/offer", offer)
    return server


if __name__ == "__main__":
    web.run_app(app(Rules.of(sys.argv[2:])), host="127.0.0.1", port=int(sys.argv[1]), print=None)
