"""The two ends of a call's audio: ``PlayoutTrack`` sends the agent's voice, ``Microphone`` hears the caller.

    track = PlayoutTrack(playout)            microphone = Microphone(session.push_audio)
    track.attach(pc.addTrack(track))         microphone.attach(transceiver.receiver)
                                             ...
                                             microphone.close()

Both are attached before the connection is up, and learn the negotiated codec as it starts. A caller (the command line,
a benchmark) uses the same two classes; ``Microphone(push, rate_hz=48_000)`` hears at its rate, with no delay added.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import av
from aiortc import MediaStreamTrack, RTCRtpReceiver, RTCRtpSender
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters, RTCRtpSendParameters
from aiortc.rtp import RtpPacket

from pipeline.audio import SPEECH_RATE_HZ, AudioFormat, AudioFrame, Pcm, silence
from pipeline.lateness import Lateness

from .audio_axis import AudioAxis
from .codecs import AudioCodec, Encoder, audio_codec
from .inbound import InboundStream, MicrophoneCounters
from .jitter import Arrival, Item
from .receiver_tap import tap_receiver

PTS_HZ = 48_000


class FrameSource(Protocol):
    """What is played: a ``Playout``, or anything that paces 20 ms frames itself."""

    format: AudioFormat

    async def next_frame(self) -> AudioFrame:
        """Wait until the next frame is due and return it."""


class PlayoutTrack(MediaStreamTrack):
    """Send what a playout releases, as ready packets in the codec that was negotiated.

    Handing aiortc packets instead of frames skips its encoder, its hop to the default executor and its level loop.
    ``frames``, ``silent_frames`` and ``lateness`` (at the point where frames leave) are there to be read.
    """

    kind = "audio"

    def __init__(self, source: FrameSource, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.frames = 0
        self.silent_frames = 0
        self.lateness = Lateness()
        self._source = source
        self._clock = clock
        self._encoder: Encoder | None = None

    def attach(self, sender: RTCRtpSender) -> None:
        """Learn the codec from ``sender`` as it starts; without this the track sends Opus."""
        send = sender.send

        async def send_in_codec(parameters: RTCRtpSendParameters) -> None:
            self.use_codec(parameters.codecs[0].mimeType)
            await send(parameters)

        setattr(sender, "send", send_in_codec)  # noqa: B010 - mypy refuses to assign to a method

    def use_codec(self, mime_type: str) -> None:
        """Send in this codec; before the first frame. Raise LookupError for one that is not spoken."""
        if self._encoder is None:
            self._encoder = audio_codec(mime_type).open_encoder(self._source.format.rate_hz)

    async def recv(self) -> av.Packet[Any]:
        """Return the next frame, encoded, when it is due. Raise MediaStreamError once stopped; canceling is safe."""
        if self.readyState != "live":
            raise MediaStreamError
        frame = await self._source.next_frame()
        if self.readyState != "live":
            raise MediaStreamError
        packet = self._packet(frame)
        self.frames += 1
        self.silent_frames += frame.silent
        self.lateness.note(frame, self._clock())
        return packet

    def _packet(self, frame: AudioFrame) -> av.Packet[Any]:
        self.use_codec("audio/opus")
        assert self._encoder is not None
        packet = av.Packet(self._encoder.encode(frame))
        packet.pts = frame.pts * PTS_HZ // frame.rate_hz
        packet.time_base = Fraction(1, PTS_HZ)
        return packet


class Microphone:
    """Turn a receiver's RTP packets into contiguous mono audio at ``rate_hz``, pushed as it arrives.

    ``push(pcm)`` is called on the event loop, synchronously, with pieces of any length. In sequence a packet is pushed
    in the moment it arrives; see ``jitter`` for what happens to losses and ``audio_axis`` for what happens to pauses:
    a caller who sends nothing is heard as silence at the rate of the clock, from 200 ms on.
    ``last_packet_s`` is the loop's time of the last RTP packet, None before the first.
    """

    def __init__(self, push: Callable[[Pcm], None], rate_hz: int = SPEECH_RATE_HZ) -> None:
        self.last_packet_s: float | None = None
        self._push = push
        self._rate_hz = rate_hz
        self._codecs: dict[int, AudioCodec] = {}
        self._inbound: InboundStream | None = None
        self._axis: AudioAxis | None = None
        self._timer: tuple[float, asyncio.Handle] | None = None
        self._counts = MicrophoneCounters()

    def attach(self, receiver: RTCRtpReceiver) -> None:
        """Hear what ``receiver`` gets; its own track yields nothing then. Before the connection is up."""
        tap_receiver(receiver, self._start, self.receive)

    def start(self, codecs: dict[int, AudioCodec]) -> None:
        """Begin: silence is fed from 200 ms on. ``codecs`` by payload type. ``attach`` does this at the right time."""
        self._codecs = codecs
        self._axis = AudioAxis(self._rate_hz, asyncio.get_running_loop().time())
        self._arm(self._axis)

    def close(self) -> None:
        """Push nothing any more. Synchronous, idempotent."""
        self._axis = None
        if self._timer is not None:
            self._timer[1].cancel()
            self._timer = None

    @property
    def counters(self) -> dict[str, int]:
        """Every counter by its name: those of ``JitterCounters`` and of ``MicrophoneCounters``."""
        return self._counts.as_dict()

    def receive(self, packet: RtpPacket) -> None:
        """Take one packet. A bad one is counted and concealed."""
        axis, codec = self._axis, self._codecs.get(packet.payload_type)
        if axis is None or codec is None:
            return
        now_s = self.last_packet_s = asyncio.get_running_loop().time()
        inbound = self._inbound_of(codec)
        arrival = Arrival(packet.sequence_number, packet.timestamp, packet.payload, now_s, packet.ssrc)
        items = inbound.jitter.push(arrival)
        self._arm(axis)
        self._play(inbound, items, now_s)

    def _start(self, parameters: RTCRtpReceiveParameters) -> None:
        self.start({codec.payloadType or 0: audio_codec(codec.mimeType) for codec in parameters.codecs})

    def _inbound_of(self, codec: AudioCodec) -> InboundStream:
        if self._inbound is None or self._inbound.codec is not codec:
            self._inbound = InboundStream(codec, self._rate_hz, self._counts)
        return self._inbound

    def _play(self, inbound: InboundStream, items: list[Item], now_s: float) -> None:
        for item in items:
            if self._axis is not None:
                self._give(inbound.render(item, self._axis, now_s))

    def _give(self, pcm: Pcm) -> None:
        if len(pcm):
            self._counts.pushed_samples += len(pcm)
            self._push(pcm)

    def _arm(self, axis: AudioAxis) -> None:
        """Keep one timer, for whatever is due first. One that fires early arms itself again: cheaper than moving it
        with every packet."""
        hole_s = self._inbound.jitter.deadline_s if self._inbound else None
        due_s = axis.deadline_s if hole_s is None else min(hole_s, axis.deadline_s)
        if self._timer is not None:
            if self._timer[0] <= due_s:
                return
            self._timer[1].cancel()
        # uvloop's handle of a time that has passed does not know its time
        self._timer = due_s, asyncio.get_running_loop().call_at(due_s, self._on_time, due_s)

    def _on_time(self, due_s: float) -> None:
        self._timer = None
        axis = self._axis
        if axis is None:
            return
        now_s = max(due_s, asyncio.get_running_loop().time())
        items = self._inbound.jitter.poll(now_s) if self._inbound else []
        silent_samples = axis.silence(now_s) if not items else 0
        self._counts.fed_silence_samples += silent_samples
        self._arm(axis)
        if self._inbound:
            self._play(self._inbound, items, now_s)
        self._give(silence(silent_samples))
