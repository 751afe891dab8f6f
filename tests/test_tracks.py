"""Both ends of a call's audio over real connections, and the microphone's clock without one."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpReceiverInfo, RtpPacket

from media_server import opus
from media_server.codecs import audio_codec
from media_server.receiver_tap import MAX_SOURCES
from media_server.tracks import Microphone, PlayoutTrack
from pipeline.audio import AudioFormat, AudioFrame, Pcm
from pipeline.lateness import Lateness
from pipeline.playout import Playout
from tests import virtual_time
from tests.test_opus import frames, speech

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
    clock_s: list[float] = field(default_factory=list)

    def push(self, pcm: Pcm) -> None:
        self.parts.append(pcm)
        self.times_s.append(asyncio.get_running_loop().time())
        self.clock_s.append(time.perf_counter())

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
    source: ToneSource,
    codec: str = "opus",
    rate_hz: int = 16_000,
    drop: Callable[[int], bool] = lambda _: False,
    watch: Callable[[RtpPacket], None] = lambda _: None,
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
    _lose(receiver, drop, watch)
    await there.setLocalDescription(await there.createAnswer())
    await here.setRemoteDescription(there.localDescription)
    try:
        yield Call(track, microphone, ear, receiver, back, back_ear)
    finally:
        microphone.close()
        back.close()
        await asyncio.gather(here.close(), there.close())


def _lose(receiver: RTCRtpReceiver, drop: Callable[[int], bool], watch: Callable[[RtpPacket], None]) -> None:
    handle = receiver._handle_rtp_packet
    count = 0

    async def lossy(packet: RtpPacket, arrival_time_ms: int) -> None:
        nonlocal count
        count += 1
        if not drop(count - 1):
            watch(packet)
            await handle(packet, arrival_time_ms=arrival_time_ms)

    setattr(receiver, "_handle_rtp_packet", lossy)  # noqa: B010


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - it watches what belongs to aiortc
            await asyncio.sleep(0.01)


def pitch_hz(pcm: Pcm, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(np.argmax(spectrum) * rate_hz / len(pcm))


def quietest(pcm: Pcm, rate_hz: int) -> float:
    """The level of the quietest 10 ms."""
    size = rate_hz // 100
    windows = pcm[: len(pcm) // size * size].reshape(-1, size).astype(float)
    return float(np.sqrt((windows**2).mean(axis=1)).min())


# --- real connections


@pytest.mark.parametrize(
    ("codec", "rate_hz"), [("opus", 16_000), ("opus", 48_000), ("pcmu", 16_000), ("pcma", 16_000), ("g722", 24_000)]
)
def test_a_tone_arrives_both_ways_without_a_hole(codec: str, rate_hz: int) -> None:
    async def main() -> None:
        async with call(ToneSource(), codec, rate_hz) as connected:
            await until(lambda: min(c.counters["received"] for c in (connected.microphone, connected.back)) >= 60)
            heard = connected.ear.pcm[-rate_hz:]
            assert pitch_hz(heard, rate_hz) == pytest.approx(TONE_HZ, abs=3)
            assert pitch_hz(connected.back_ear.pcm[-16_000:], 16_000) == pytest.approx(TONE_HZ, abs=3)
            counters = connected.microphone.counters
            assert counters["undecodable"] == counters["lost"] == 0
            if not counters["fed_silence_samples"]:
                assert quietest(heard, rate_hz) > 3000

    asyncio.run(main())


def test_one_packet_every_20_ms_and_none_of_them_through_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("audio levels are computed sample by sample")

    monkeypatch.setattr("aiortc.rtp.compute_audio_level_dbov", unwanted)
    packets: list[RtpPacket] = []

    async def main() -> None:
        async with call(ToneSource(silent=lambda n: n % 60 > 30), watch=packets.append) as connected:
            await until(lambda: len(packets) >= 100)
            assert asyncio.get_running_loop()._default_executor is None  # type: ignore[attr-defined]
            assert not [t.name for t in threading.enumerate() if "decoder" in t.name]
            assert connected.track.frames >= 100
            assert 30 <= connected.track.silent_frames < 70
            stats = await connected.receiver.getStats()
            inbound = next(s for s in stats.values() if s.type == "inbound-rtp")
            assert inbound.packetsReceived >= 100

    asyncio.run(main())
    steps = {(b.timestamp - a.timestamp) % (1 << 32) for a, b in itertools.pairwise(packets)}
    assert steps == {960}
    assert {opus.samples_of(packet.payload) for packet in packets} == {960}
    assert all(packet.extensions.audio_level is None for packet in packets)


def test_in_order_nothing_is_delayed() -> None:
    """The audio of a packet is pushed in the very step of the loop in which the packet arrives."""
    came: list[float] = []

    async def main() -> None:
        async with call(ToneSource(), watch=lambda _: came.append(time.perf_counter())) as connected:
            await until(lambda: len(connected.ear.times_s) >= 50)
            assert connected.microphone.counters["received"] == len(connected.ear.times_s)
            delays = [heard - at for heard, at in zip(connected.ear.clock_s, came, strict=False)]
            assert np.median(delays) < 0.005

    asyncio.run(main())


def test_a_lossy_call_is_whole_and_not_late() -> None:
    async def main() -> None:
        async with call(ToneSource(), drop=lambda n: n % 10 == 7) as connected:
            await until(lambda: connected.microphone.counters["received"] >= 90)
            counters = connected.microphone.counters
            assert counters["lost"] >= 9
            assert counters["recovered"] + counters["concealed"] == counters["lost"]
            assert counters["late"] == 0
            missing = counters["received"] + counters["lost"] - counters["pushed_samples"] / 320
            assert missing <= 1 + counters["fed_silence_samples"] / 320
            assert pitch_hz(connected.ear.pcm[-16_000:], 16_000) == pytest.approx(TONE_HZ, abs=3)
            stats = await connected.receiver.getStats()
            told = next(s.packetsLost for s in stats.values() if s.type == "inbound-rtp")
            assert told >= 9, "senders add no FEC unless RTCP tells them of losses"

    asyncio.run(main())


def test_too_many_sources_are_not_kept() -> None:
    """More than 31 would break the receiver's RTCP reports, and with them the closing of the call."""

    async def main() -> None:
        async with call(ToneSource()) as connected:
            await until(lambda: connected.microphone.counters["received"] >= 5)
            handle, payload_type = connected.receiver._handle_rtp_packet, 96
            for ssrc in range(200):
                await handle(RtpPacket(payload_type=payload_type, ssrc=ssrc, payload=b"\x08"), arrival_time_ms=0)
            assert len(connected.receiver.getSynchronizationSources()) <= MAX_SOURCES
            before = connected.microphone.counters["received"]
            await until(lambda: connected.microphone.counters["received"] >= before + 5)

    asyncio.run(main())


def test_timestamps_that_jump_do_not_break_the_reports() -> None:
    """aiortc's jitter estimate would outgrow 32 bits, its RTCP task would end and closing the call never return."""

    async def main() -> None:
        async with call(ToneSource()) as connected:
            await until(lambda: connected.microphone.counters["received"] >= 5)
            stream = next(iter(connected.receiver._RTCRtpReceiver__remote_streams.values()))  # type: ignore[attr-defined]
            stream._jitter_q4 = 1 << 40
            before = connected.microphone.counters["received"]
            await until(lambda: connected.microphone.counters["received"] > before)
            RtcpReceiverInfo(1, 0, 0, stream.max_seq, stream.jitter, 0, 0).__bytes__()

    asyncio.run(main())


def test_whoever_listens_badly_does_not_end_the_call(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: Pcm) -> None:
        raise RuntimeError("the session is broken")

    async def main() -> None:
        async with call(ToneSource()) as connected:
            connected.microphone._push = refuse
            await until(lambda: connected.microphone.counters["received"] >= 10)
            assert connected.receiver.transport.state == "connected"

    asyncio.run(main())
    assert "the session is broken" in caplog.text


def test_a_closed_microphone_hears_nothing_and_a_stopped_track_ends() -> None:
    async def main() -> None:
        async with call(ToneSource()) as connected:
            await until(lambda: bool(connected.ear.parts))
            connected.microphone.close()
            connected.microphone.close()
            count = len(connected.ear.parts)
            await asyncio.sleep(0.3)
            assert len(connected.ear.parts) == count
            connected.track.stop()
            with pytest.raises(MediaStreamError):
                await connected.track.recv()

    asyncio.run(main())


# --- a microphone alone, in virtual time


def rtp(index: int, *, skipped: int = 0, payload: bytes | None = None, payload_type: int = 0) -> RtpPacket:
    """The ``index``-th 20 ms packet of PCMU; ``skipped`` samples at 8 kHz were not sent before it."""
    return RtpPacket(
        payload_type=payload_type,
        sequence_number=index & 0xFFFF,
        timestamp=(index * 160 + skipped) & 0xFFFFFFFF,
        ssrc=1,
        payload=b"\x90" * 160 if payload is None else payload,
    )


@asynccontextmanager
async def listening(codec: str = "audio/pcmu") -> AsyncIterator[tuple[Microphone, Ear]]:
    ear = Ear()
    microphone = Microphone(ear.push)
    microphone.start({0: audio_codec(codec), 96: audio_codec("audio/opus")})
    try:
        yield microphone, ear
    finally:
        microphone.close()


def test_a_muted_sender_is_heard_as_silence_in_real_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening() as (microphone, ear):
            for index in range(50):
                await asyncio.sleep(0.02)
                microphone.receive(rtp(index))
            last_s, before = loop.time(), microphone.counters["pushed_samples"]
            await asyncio.sleep(5.001)
            silent = microphone.counters["pushed_samples"] - before
            assert silent == pytest.approx(5 * 16_000, abs=330)
            assert ear.times_s[50] == pytest.approx(last_s + 0.2)
            assert np.diff(ear.times_s[50:]).max() == pytest.approx(0.02)
            microphone.receive(rtp(50, skipped=8000 * 5))
            total = microphone.counters["pushed_samples"]
            assert total == pytest.approx((1 + 5.02) * 16_000, abs=400)

    virtual_time.run(main())


def test_a_lost_packet_stalls_20_ms_and_then_the_delay_is_gone() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening() as (microphone, ear):
            late_ms = []
            for index in range(30):
                await asyncio.sleep(0.02)
                if index == 10:
                    continue
                at_s = loop.time()
                microphone.receive(rtp(index))
                late_ms.append((ear.times_s[-1] - at_s) * 1000)
            assert microphone.counters["concealed"] == 1
            assert microphone.counters["pushed_samples"] == pytest.approx(30 * 320, abs=64)
            gaps = np.diff(ear.times_s)
            assert gaps.max() <= 0.0601
            assert late_ms[11:] == [0.0] * len(late_ms[11:])

    virtual_time.run(main())


@pytest.mark.parametrize("loss", ["1 %", "5 %", "10 %", "bursts"])
def test_opus_speech_survives_loss(loss: str) -> None:
    """The axis stays whole, and most of what was lost comes back from the packets that follow."""
    rng = np.random.default_rng(5)
    bursts = {index for start in range(20, 990, 97) for index in range(start, start + 6)}
    random = {index for index in range(5, 995) if rng.random() < float(loss.rstrip(" %burst") or 0) / 100}
    lost = bursts if loss == "bursts" else random
    encoder = opus.OpusEncoder(24_000)
    sent = [encoder.encode(frame) for frame in frames(speech())]
    arriving = [index for index in range(1000) if index not in lost]
    longest = max(b - a for a, b in itertools.pairwise(arriving))

    async def main() -> None:
        async with listening() as (microphone, ear):
            for index in range(1000):
                await asyncio.sleep(0.02)
                if index not in lost:
                    microphone.receive(RtpPacket(96, 0, index, index * 960, 1, sent[index % len(sent)]))
            counters = microphone.counters
            assert counters["lost"] == len(lost)
            assert counters["pushed_samples"] == 1000 * 320
            assert counters["fed_silence_samples"] == 0
            assert np.diff(ear.times_s).max() <= longest * 0.02 + 0.0201
            assert counters["recovered"] >= 0.6 * (10 if loss == "bursts" else len(lost))

    virtual_time.run(main())


def test_bad_packets_are_counted_and_concealed() -> None:
    async def main() -> None:
        async with listening() as (microphone, _):
            for index in range(100):
                await asyncio.sleep(0.02)
                payload = b"\xfb\x03\xff" if index % 10 == 5 else b"\x08"
                microphone.receive(RtpPacket(96, 0, index, index * 960, 1, payload))
            assert microphone.counters["undecodable"] == 10
            microphone.receive(rtp(100, payload_type=77))
            assert microphone.counters["received"] == 100
            assert microphone.counters["pushed_samples"] >= 100 * 320 - 320 * 10

    virtual_time.run(main())


def test_a_sender_may_change_its_codec() -> None:
    async def main() -> None:
        async with listening() as (microphone, ear):
            for index in range(20):
                await asyncio.sleep(0.02)
                changed = index >= 10
                microphone.receive(RtpPacket(96, 0, index, index * 960, 1, b"\x08") if changed else rtp(index))
            assert len(ear.pcm) == pytest.approx(20 * 320, abs=64)

    virtual_time.run(main())


def test_before_any_packet_there_is_silence_and_no_packet_time() -> None:
    async def main() -> None:
        async with listening() as (microphone, ear):
            await asyncio.sleep(1.001)
            assert microphone.last_packet_s is None
            assert len(ear.pcm) == pytest.approx(16_000, abs=321)
            assert not ear.pcm.any()

    virtual_time.run(main())


# --- sending


@pytest.mark.parametrize("mime_type", ["audio/opus", "audio/PCMU", "audio/PCMA", "audio/G722"])
@pytest.mark.parametrize("rate_hz", [24_000, 48_000])
def test_every_codec_sends_one_full_packet_a_frame(mime_type: str, rate_hz: int) -> None:
    async def main() -> list[int]:
        track = PlayoutTrack(ToneSource(rate_hz))
        track.use_codec(mime_type)
        sent = [await track.recv() for _ in range(100)]
        assert [packet.pts for packet in sent] == [960 * index for index in range(100)]
        return [packet.size for packet in sent]

    sizes = virtual_time.run(main())
    if mime_type != "audio/opus":
        assert set(sizes) == {160}


def test_a_playout_is_sent_as_it_plays() -> None:
    async def main() -> None:
        playout = Playout(AudioFormat(24_000))
        track = PlayoutTrack(playout)
        quiet = [await track.recv() for _ in range(20)]
        writer = playout.open(1, rate_hz=22_050)
        writer.begin("hello")
        await writer.write((np.sin(np.arange(22_050) * 0.2) * 9000).astype(np.int16))
        writer.end()
        writer.finish()
        loud = [await track.recv() for _ in range(20)]
        assert track.frames == 40
        assert track.silent_frames == 20
        assert max(packet.size for packet in quiet[-5:]) < 40 < min(packet.size for packet in loud[2:])
        assert [packet.pts for packet in quiet + loud] == [960 * index for index in range(40)]

    virtual_time.run(main())


def test_lateness_is_measured_per_talkspurt() -> None:
    late_ms: list[float] = []
    lateness = Lateness(late_ms.append)

    def note(index: int, at_s: float, *, silent: bool) -> float:
        lateness.note(AudioFrame(np.zeros(480, np.int16), 24_000, index * 480, silent), at_s)
        return late_ms[-1]

    assert note(0, 0.000, silent=True) == 0
    assert note(1, 0.020, silent=True) == pytest.approx(0)
    assert note(2, 0.030, silent=False) == pytest.approx(0)  # a talkspurt that starts early
    assert note(3, 0.057, silent=False) == pytest.approx(7)
    assert note(4, 0.080, silent=True) == pytest.approx(0)
    assert note(5, 0.125, silent=True) == pytest.approx(25)


def test_a_codec_nobody_speaks_is_named() -> None:
    with pytest.raises(LookupError, match="audio/speex"):
        audio_codec("audio/speex")
