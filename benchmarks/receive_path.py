"""What a receiver makes of packets that a network has been at: ours, with and without its parts, and aiortc's own.

Ours is ``Microphone`` itself, on an event loop whose clock jumps from one packet to the next: its jitter buffer, its
decoder, its timers. aiortc's is its ``JitterBuffer`` and ``OpusDecoder``, as its receiver joins them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from aiortc.codecs.opus import OpusDecoder
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket

from media_server import opus
from media_server.codecs import AudioCodec
from media_server.decoder import AvDecoder, Decoder
from media_server.tracks import Microphone
from pipeline.audio import SPEECH_RATE_HZ, Pcm, silence
from pipeline.resample import Resampler
from tests import virtual_time

from .network import Arrived
from .turn_set import RECORDINGS, read

RECORDED = ("austen-0880.wav", "go-forward.wav", "lj001-0004.wav", "lj001-0008.wav")
BROWSER_BIT_RATE = 40_000
"""What this server's answers ask for (``maxaveragebitrate``)."""
PACKET_SAMPLES = opus.CLOCK_HZ // 50
PAYLOAD_TYPE = 111


def recorded_speech() -> Pcm:
    """Return 13 s of three people's speech at 16 kHz."""
    return np.concatenate([read(RECORDINGS / name) for name in RECORDED])


def browser_packets(speech: Pcm, told_loss_percent: int, *, fec: bool = True) -> list[bytes]:
    """Encode speech at 16 kHz as a browser does: 48 kHz, voice, 20 ms, 40 kb/s.

    Its FEC follows the loss that it is told by RTCP: from 1 % on it repeats speech, at 0 % nothing.
    """
    resampler = Resampler(SPEECH_RATE_HZ, opus.CLOCK_HZ)
    pcm = np.concatenate([resampler.push(speech), resampler.flush()])
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout, codec.format = opus.CLOCK_HZ, "mono", "s16"
    codec.bit_rate, codec.time_base = BROWSER_BIT_RATE, Fraction(1, opus.CLOCK_HZ)
    codec.options = {"application": "voip", "fec": str(int(fec)), "packet_loss": str(told_loss_percent)}
    codec.open()
    packets: list[bytes] = []
    for start in range(0, len(pcm) - PACKET_SAMPLES + 1, PACKET_SAMPLES):
        frame = av.AudioFrame.from_ndarray(pcm[start : start + PACKET_SAMPLES].reshape(1, -1), "s16", "mono")
        frame.sample_rate, frame.pts = opus.CLOCK_HZ, start
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return packets


@dataclass(slots=True)
class Received:
    """The sound at 16 kHz from the first packet's place on, and when each packet that was played was played.

    Of aiortc, which leaves holes, ``pcm`` has silence in them: each frame is where its timestamp says.
    """

    pcm: Pcm
    played_s: dict[int, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)


class _Watched:
    """A decoder that notes when it was given which packet."""

    def __init__(self, decoder: Decoder, note: Callable[[bytes], None]) -> None:
        self._decoder = decoder
        self._note = note

    def decode(self, payload: bytes) -> Pcm:
        self._note(payload)
        return self._decoder.decode(payload)

    def conceal(self, samples: int, following: bytes | None) -> Pcm:
        return self._decoder.conceal(samples, following)

    def carries_fec(self, payload: bytes) -> bool:
        return self._decoder.carries_fec(payload)


def without_libopus(rate_hz: int) -> Decoder:
    """Return the decoder that is used where libopus is not to be found."""
    return AvDecoder(("libopus", "opus"), opus.CLOCK_HZ, rate_hz)


def receive(
    arrived: Sequence[Arrived], packets: Sequence[bytes], open_decoder: Callable[[int], Decoder] = opus.open_decoder
) -> Received:
    """Let a microphone hear what arrives; the ``packets`` begin again where they end."""
    return virtual_time.run(_receive(arrived, packets, open_decoder))


async def _receive(
    arrived: Sequence[Arrived], packets: Sequence[bytes], open_decoder: Callable[[int], Decoder]
) -> Received:
    loop, parts, played_s, next_index = asyncio.get_running_loop(), [silence(0)], dict[int, float](), 0
    start_s = loop.time() - arrived[0].at_s

    def note(payload: bytes) -> None:
        nonlocal next_index
        while packets[next_index % len(packets)] is not payload:  # what is skipped was lost: packets leave in order
            next_index += 1
        played_s[next_index] = loop.time() - start_s
        next_index += 1

    def watched(rate_hz: int) -> Decoder:
        return _Watched(open_decoder(rate_hz), note)

    microphone = Microphone(parts.append)
    microphone.start({PAYLOAD_TYPE: AudioCodec(opus.CLOCK_HZ, opus.samples_of, watched, opus.OpusEncoder)})
    for packet in arrived:
        await asyncio.sleep(packet.at_s + start_s - loop.time())
        microphone.receive(rtp(packet.index, packets))
    await asyncio.sleep(0.1)
    microphone.close()
    return Received(np.concatenate(parts), played_s, microphone.counters)


def receive_in_aiortc(arrived: Sequence[Arrived], packets: Sequence[bytes]) -> Received:
    """Let aiortc's receiver hear what arrives."""
    buffer, decoder = JitterBuffer(capacity=16, prefetch=4), OpusDecoder()
    received = Received(silence(0))
    sound = silence((max(packet.index for packet in arrived) + 1) * PACKET_SAMPLES)
    for packet in arrived:
        arrival = rtp(packet.index, packets)
        arrival._data = arrival.payload  # type: ignore[attr-defined]  # what its depayload() makes of Opus
        _, frame = buffer.add(arrival)
        if frame is None:
            continue
        index = frame.timestamp // PACKET_SAMPLES
        received.played_s[index] = packet.at_s
        for decoded in decoder.decode(frame):
            assert isinstance(decoded, av.AudioFrame)
            mono = decoded.to_ndarray().reshape(-1, 2).mean(axis=1)
            sound[index * PACKET_SAMPLES : (index + 1) * PACKET_SAMPLES] = mono[:PACKET_SAMPLES]
    resampler = Resampler(opus.CLOCK_HZ, SPEECH_RATE_HZ)
    received.pcm = np.concatenate([resampler.push(sound[arrived[0].index * PACKET_SAMPLES :]), resampler.flush()])
    return received


def rtp(index: int, packets: Sequence[bytes]) -> RtpPacket:
    """Return the ``index``-th packet of a stream."""
    return RtpPacket(
        payload_type=PAYLOAD_TYPE,
        sequence_number=index & 0xFFFF,
        timestamp=(index * PACKET_SAMPLES) & 0xFFFFFFFF,
        ssrc=1,
        payload=packets[index % len(packets)],
    )
