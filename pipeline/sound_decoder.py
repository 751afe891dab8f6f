"""Decode one sound file: the child process of `pipeline.sound_file`, which alone runs it, as a script.

It reads the file from standard input and answers on standard output: a line of JSON, the verdict, and then mono s16le.
Whatever the file makes libav do stays in here: no descriptor can be opened (so a playlist reaches neither another file
nor the network), memory and processor time are bounded, and the environment is empty. Nothing of ours is imported, and
no numpy: the start is most of what decoding a short file costs.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import av
import av.subtitles.codeccontext
import av.subtitles.stream  # both at start: PyAV imports them with the first file, when nothing can be opened any more
from av.container import InputContainer
from av.stream import Disposition

Packet: TypeAlias = "av.Packet[av.AudioStream]"

SAMPLE_BYTES: Final = 2
MIN_RATE_HZ: Final = 4_000
MAX_RATE_HZ: Final = 384_000
"""Beyond these the resampler's filter grows out of proportion, and nobody records speech so."""
NO_SOUND: Final = "there is no sound in it that can be decoded: send a whole WAV, FLAC, MP3, M4A, Ogg or WebM file"
WHOLE_WITHIN_S: Final = 0.5
WHOLE_WITHIN_BYTES: Final = 4096
"""What a file may lack of the length it announces: encoders' delays, writers that count their header."""
UNKNOWN_FROM_BYTES: Final = 0x7FFF_0000
"""A RIFF or AIFF file whose writer could not go back to fill in its length announces 2 or 4 GiB, or nothing."""
ANNOUNCING: Final = ("flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers whose header tells their length. For others libav guesses it from the first frame's bit rate."""


class Refused(Exception):
    """Say why this file is not taken, with the HTTP status to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Order:
    """What to make of the file, and its bounds. ``trim``: cut at ``duration_s`` what is otherwise too long."""

    rate_hz: int
    duration_s: float
    trim: bool
    channels: int
    memory_bytes: int
    cpu_s: int
    wall_s: int

    @property
    def most_bytes(self) -> int:
        """Length of the longest answer."""
        return int(self.duration_s * self.rate_hz) * SAMPLE_BYTES

    def too_long(self) -> Refused:
        """Say that the sound is longer than what is taken."""
        return Refused(413, f"it is longer than {self.duration_s:g} s: cut it")


class Mono:
    """The sound so far, at the rate and in the shape that is wanted."""

    def __init__(self, order: Order) -> None:
        self.pcm = bytearray()
        self._order = order
        self._shape: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def add(self, frame: av.AudioFrame) -> None:
        """Append a frame. A stream may change its shape on the way (chained Ogg, broken files)."""
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or shape != self._shape:
            check_shape(frame.layout.nb_channels, frame.sample_rate, self._order)
            self.end()
            self._shape = shape
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=self._order.rate_hz)
        frame.pts = None  # sound is as long as its samples, whatever a broken file says of their time
        self._append(self._resampler.resample(frame))

    def end(self) -> None:
        """Append what the resampler withheld."""
        if self._resampler is not None:
            self._append(self._resampler.resample(None))
            self._resampler = None

    def cut(self) -> bytearray:
        """Return no more of it than was ordered. Raises Refused where that is not to be cut."""
        if len(self.pcm) > self._order.most_bytes and not self._order.trim:
            raise self._order.too_long()
        del self.pcm[self._order.most_bytes :]
        return self.pcm

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            self.pcm += memoryview(frame.planes[0])[: frame.samples * SAMPLE_BYTES]


def check_shape(channels: int, rate_hz: int, order: Order) -> None:
    """Raise Refused for what no recording of speech has."""
    if not 1 <= channels <= order.channels:
        raise Refused(400, f"it has {channels} channels: from 1 to {order.channels} are taken")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise Refused(400, f"its sample rate is {rate_hz} Hz: from {MIN_RATE_HZ} to {MAX_RATE_HZ} is taken")


def decode(source: bytes, order: Order) -> bytearray:
    """Return the first audio stream of ``source``. Raises Refused, and whatever libav raises on what it cannot open."""
    require_whole_riff(source)
    nothing_else = {"protocol_whitelist": "none"}  # what playlists and session descriptions name stays closed
    with av.open(io.BytesIO(source), mode="r", options=nothing_else, metadata_errors="replace") as container:
        stream = sound_of(container)
        check_shape(stream.codec_context.channels, stream.codec_context.sample_rate, order)
        announced_s = announced(container, stream)
        if announced_s > order.duration_s + WHOLE_WITHIN_S and not order.trim:
            raise order.too_long()
        return decode_stream(container, stream, announced_s, order)


def decode_stream(container: InputContainer, stream: av.AudioStream, announced_s: float, order: Order) -> bytearray:
    """Decode packet by packet; one that cannot be is left out, as players do, unless most cannot."""
    sound = Mono(order)
    good = bad = 0
    reached_s = 0.0
    for packet in packets(container, stream):
        frames = frames_of(packet)
        if frames is None:
            bad += 1
            continue
        good += 1
        reached_s = max(reached_s, end_of(packet))
        for frame in frames:
            sound.add(frame)
        if len(sound.pcm) > order.most_bytes:
            return sound.cut()
    sound.end()
    if bad > good:
        raise Refused(415, "most of it cannot be decoded: it is damaged")
    if reached_s < announced_s - WHOLE_WITHIN_S:
        raise Refused(400, f"it announces {announced_s:.1f} s and ends after {reached_s:.1f} s: it is truncated")
    if not sound.pcm:
        raise Refused(400, "it holds no sound")
    return sound.cut()


def packets(container: InputContainer, stream: av.AudioStream) -> Iterator[Packet]:
    """Yield a stream's packets, and an empty one that brings out what the decoder withheld.

    Where the demuxer cannot go on, the file ends: whether it was whole is asked elsewhere.
    """
    try:
        yield from container.demux(stream)
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def frames_of(packet: Packet) -> list[av.AudioFrame] | None:
    """Decode a packet; None where it cannot be."""
    try:
        return packet.decode()
    except MemoryError:
        raise
    except av.FFmpegError:
        return None


def end_of(packet: Packet) -> float:
    """Return when a packet's sound ends, in seconds; 0 where it does not tell."""
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def sound_of(container: InputContainer) -> av.AudioStream:
    """Return the first audio stream there is a decoder for. Raises Refused for a video."""
    if any(not video.disposition & Disposition.attached_pic for video in container.streams.video):
        raise Refused(415, "it is a video or a picture: send its sound alone")
    stream = next((s for s in container.streams.audio if s.codec_context is not None), None)
    if stream is None:
        raise Refused(415, NO_SOUND)
    stream.codec_context.thread_count = 1
    return stream


def announced(container: InputContainer, stream: av.AudioStream) -> float:
    """Return the length that the header tells, in seconds; 0 where it tells none."""
    if container.format.name not in ANNOUNCING:
        return 0.0
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1_000_000


def require_whole_riff(source: bytes) -> None:
    """Raise Refused for a truncated RIFF (WAV, AVI) or FORM (AIFF): libav takes the file's end for the sound's."""
    order = {b"RIFF": "<I", b"FORM": ">I"}.get(source[:4])
    if order is None or len(source) < 8:
        return
    (size,) = struct.unpack_from(order, source, 4)
    if len(source) + WHOLE_WITHIN_BYTES < size < UNKNOWN_FROM_BYTES:
        raise Refused(400, f"it announces {size} bytes and has {len(source)}: it is truncated")


def confine(order: Order) -> None:
    """Give up what decoding does not need, for good. Where the system has no such limits the parent's clock remains."""
    if sys.platform == "win32":
        return
    import resource

    def limit(what: int, most: int) -> None:
        hard = resource.getrlimit(what)[1]  # where the system is stricter, it stays so
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))

    os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), 65_536))  # uvloop's children inherit what may be inherited
    signal.alarm(order.wall_s)  # should the parent be killed
    os.nice(5)  # calls come first
    if sys.platform == "linux":
        # One processor, so that libav starts no threads: each would cost 8 MB and more of address space.
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[os.getpid() % len(processors)]})
        with open("/proc/self/statm") as statm:
            held_bytes = int(statm.read().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, held_bytes + order.memory_bytes)
    limit(resource.RLIMIT_CPU, order.cpu_s)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 0)


def judged(source: bytes, order: Order) -> tuple[dict[str, Any], bytearray]:
    """Return the verdict on ``source`` and its sound."""
    try:
        return {"status": 200}, decode(source, order)
    except Refused as error:
        return {"status": error.status, "message": str(error)}, bytearray()
    except MemoryError:
        return {"status": 413, "message": "it needs too much memory to decode"}, bytearray()
    except Exception:  # whatever else a hostile file makes libav or its binding raise
        return {"status": 415, "message": NO_SOUND}, bytearray()


def main() -> None:
    """Answer one order."""
    order = Order(**json.loads(sys.argv[1]))
    source = sys.stdin.buffer.read()
    confine(order)
    verdict, pcm = judged(source, order)
    sys.stdout.buffer.write(json.dumps(verdict).encode() + b"\n")
    sys.stdout.buffer.write(pcm)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
