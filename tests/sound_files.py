"""Sound files of all kinds, made where they are needed."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, Pcm

KINDS = {
    "wav": ("wav", "pcm_s16le", 48_000),
    "8 bit wav": ("wav", "pcm_mulaw", 8_000),
    "24 bit wav": ("wav", "pcm_s24le", 96_000),
    "aiff": ("aiff", "pcm_s16be", 44_100),
    "flac": ("flac", "flac", 16_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "aac": ("adts", "aac", 44_100),
    "m4a": ("ipod", "aac", 44_100),
    "fragmented mp4": ("mp4", "aac", 44_100),
    "ogg": ("ogg", "libopus", 48_000),
    "webm": ("webm", "libopus", 48_000),
    "amr": ("amr", "libopencore_amrnb", 8_000),
}
"""What phones, browsers and recorders make: container, codec, rate."""


def wav(pcm: Pcm, rate_hz: int = SPEECH_RATE_HZ, channels: int = 1) -> bytes:
    """Return samples (interleaved, if there are several channels) as a WAV file."""
    return wav_header(pcm.nbytes, rate_hz, channels) + pcm.astype("<i2").tobytes()


def wav_header(
    sound_bytes: int, rate_hz: int = SPEECH_RATE_HZ, channels: int = 1, riff_bytes: int | None = None
) -> bytes:
    """Return a WAV header, however absurd."""
    riff_bytes = 36 + sound_bytes if riff_bytes is None else riff_bytes
    byte_rate, block = rate_hz * channels * 2 % 2**32, channels * 2 % 2**16
    shape = struct.pack("<IHHIIHH", 16, 1, channels, rate_hz, byte_rate, block, 16)
    return b"RIFF" + struct.pack("<I", riff_bytes) + b"WAVEfmt " + shape + b"data" + struct.pack("<I", sound_bytes)


def encoded(pcm: Pcm, kind: str) -> bytes:
    """Return 16 kHz speech as a file of one of `KINDS`."""
    container, codec, rate_hz = KINDS[kind]
    options = {"movflags": "frag_keyframe+empty_moov"} if kind == "fragmented mp4" else {}
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)
        add_sound(output, stream, pcm)
    return file.getvalue()


def add_sound(output: av.container.OutputContainer, stream: av.AudioStream, pcm: Pcm) -> None:
    """Encode 16 kHz speech into a stream."""
    context = stream.codec_context
    resampler = av.AudioResampler(context.format, "mono", context.sample_rate, context.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = SPEECH_RATE_HZ
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))


def video(pcm: Pcm) -> bytes:
    """Return a film of 8 grey frames with speech."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        picture = output.add_stream("mpeg4", rate=Fraction(25))
        sound = output.add_stream("aac", rate=44_100, layout="mono")
        assert isinstance(picture, av.VideoStream) and isinstance(sound, av.AudioStream)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        for _ in range(8):
            output.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")))
        output.mux(picture.encode(None))
        add_sound(output, sound, pcm)
    return file.getvalue()


def flac_of_silence(seconds: int, *, announced: bool) -> bytes:
    """Return silence that takes almost no room, with or without saying in its header how long it is."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=8_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8_000
        resampler = av.AudioResampler("s16", "mono", 8_000, stream.codec_context.frame_size or 4_608)
        for _ in range(seconds):
            for part in resampler.resample(frame):
                output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    flac = bytearray(file.getvalue())
    if not announced:
        flac[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples, RFC 9639 section 8.2
        flac[22:26] = bytes(4)
    return bytes(flac)


def with_cover(mp3: bytes) -> bytes:
    """Put an ID3v2.3 tag with a picture before an MP3 file, https://id3.org/id3v2.3.0."""
    png = bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f000381"
        "0180fe9f2b2e0000000049454e44ae426082"
    )
    picture = b"\0image/png\0\x03\0" + png
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame + mp3
