"""Both ends of a call's audio over real connections, and the microphone's clock without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.rtp import RtpPacket

from media_server.tracks import Microphone, PlayoutTrack
from pipeline.audio import AudioFormat, AudioFrame, Pcm

TONE_HZ = 440.0


class ToneSource:
    """Pace 20 ms frames of a tone on an absolute schedule, with pauses where ``silent(frame)`` says so."""

    def __init__(self, rate_hz: int = 24_000, silent: Callable[[int], bool] = lambda _: False) -> None:
        self.format = AudioFormat(rate_hz)
        self._silent = silent
        self._frame = 0
        self._origin_s: float | None = None

    async def next_frame(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        self._origin_s = loop.time() if self._origin_s is None else self._origin_s
        await asyncio.sleep(self._origin_s + self._frame * 0.02 - loop.time())
        pts = self._frame * self.format.frame_samples
        silent = self._silent(self._frame)
        self._frame += 1
        phase = np.arange(pts, pts + self.format.frame_samples) * 2 * np.pi * TONE_HZ / self.format.rate_hz
        return AudioFrame((np.sin(phase) * (0 if silent else 9000)).astype(np.int16), self.format.rate_hz, pts, silent)


@dataclass
class Ear:
    """A microphone's output with the loop's time of each push."""

    parts: list[Pcm] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    def push(self, pcm: Pcm) -> None:
        self.parts.append(pcm)
        self.times_s.append(asyncio.get_running_loop().time())

    @property
    def pcm(self) -> Pcm:
        return np.concatenate(self.parts)


@dataclass
class Call:
    """One direction of a connected pair: what is sent by ``track`` is heard by ``microphone``."""

    track: PlayoutTrack
    microphone: Microphone
    ear: Ear
    receiver: RTCRtpReceiver
    back: Microphone
    back_ear: Ear


@asynccontextmanager
async def call(
    source: ToneSource, codec: str = "opus", rate_hz: int = 16_000, drop: Callable[[int], bool] = lambda _: False
) -> AsyncIterator[Call]:
    """Connect two peers in this process; ``drop(n)`` loses the nth packet on its way to the microphone."""
    here, there = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    ear, back_ear = Ear(), Ear()
    microphone, back = Microphone(ear.push, rate_hz), Microphone(back_ear.push)
    track, back_track = PlayoutTrack(source), PlayoutTrack(ToneSource())
    track.attach(here.addTrack(track))
    transceiver = here.getTransceivers()[0]
    wanted = [c for c in RTCRtpSender.getCapabilities("audio").codecs if c.name.lower() == codec]
    transceiver.setCodecPreferences(wanted)
    back.attach(transceiver.receiver)
    await here.setLocalDescription(await here.createOffer())
    await there.setRemoteDescription(here.localDescription)
    back_track.attach(there.addTrack(back_track))
    receiver = there.getTransceivers()[0].receiver
    microphone.attach(receiver)
    _lose(receiver, drop)
    await there.setLocalDescription(await there.createAnswer())
    await here.setRemoteDescription(there.localDescription)
    try:
        yield Call(track, microphone, ear, receiver, back, back_ear)
    finally:
        microphone.close()
        back.close()
        await asyncio.gather(here.close(), there.close())


def _lose(receiver: RTCRtpReceiver, drop: Callable[[int], bool]) -> None:
    handle = receiver._handle_rtp_packet
    count = 0

    async def lossy(packet: RtpPacket, arrival_time_ms: int) -> None:
        nonlocal count
        count += 1
        if not drop(count - 1):
            await handle(packet, arrival_time_ms=arrival_time_ms)

    setattr(receiver, "_handle_rtp_packet", lossy)  # noqa: B010


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def pitch_hz(pcm: Pcm, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(np.argmax(spectrum) * rate_hz / len(pcm))


@pytest.mark.parametrize(
    ("codec", "rate_hz"), [("opus", 16_000), ("opus", 48_000), ("pcmu", 16_000), ("pcma", 16_000), ("g722", 16_000)]
)
def test_a_tone_arrives_both_ways(codec: str, rate_hz: int) -> None:
    async def main() -> None:
        async with call(ToneSource(), codec, rate_hz) as connected:
            await until(lambda: connected.microphone.counters["received"] >= 60)
            await until(lambda: connected.back.counters["received"] >= 60)
            heard = connected.ear.pcm[-rate_hz // 2 :]
            assert pitch_hz(heard, rate_hz) == pytest.approx(TONE_HZ, abs=4)
            assert pitch_hz(connected.back_ear.pcm[-8000:], 16_000) == pytest.approx(TONE_HZ, abs=4)
            print(
                connected.microphone.counters,
                connected.track.frames,
                np.percentile(connected.track.lateness.late_ms, [50, 99]),
            )
            windows = heard[: len(heard) // 160 * 160].reshape(-1, 160).astype(float)
            assert np.sqrt((windows**2).mean(axis=1)).min() > 3000

    asyncio.run(main())
