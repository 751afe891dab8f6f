"""The audio codecs a peer may have negotiated: how long a packet is, who decodes it, who encodes a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import av

from pipeline.audio import AudioFrame, Framer, silence
from pipeline.resample import Resampler

from . import opus
from .decoder import AvDecoder, Decoder


class Encoder(Protocol):
    """Encode one stream of 20 ms frames."""

    def encode(self, frame: AudioFrame) -> bytes:
        """Return the one packet that carries the next 20 ms. Does not block."""


@dataclass(frozen=True, slots=True)
class AudioCodec:
    """A codec as RTP carries it. ``clock_hz`` is the rate of its timestamps."""

    clock_hz: int
    samples_of: Callable[[bytes], int]
    open_decoder: Callable[[int], Decoder]
    open_encoder: Callable[[int], Encoder]


class AvEncoder:
    """Encode through PyAV at the codec's own rate; ``silence`` of 3 ms ahead keeps every packet full.

    (The resampler withholds up to 2 ms, and a packet must leave for each frame.)
    """

    def __init__(self, codec: str, codec_hz: int, rate_hz: int) -> None:
        context = av.CodecContext.create(codec, "w")
        assert isinstance(context, av.AudioCodecContext)
        context.sample_rate = codec_hz
        context.layout = "mono"
        context.format = "s16"
        self._context = context
        self._resampler = Resampler(rate_hz, codec_hz)
        self._framer = Framer(codec_hz // 50)
        self._framer.push(self._resampler.push(silence(rate_hz * 3 // 1000)))

    def encode(self, frame: AudioFrame) -> bytes:
        """Return the packet of the next 20 ms, 2 to 3 ms behind the frame."""
        (pcm,) = self._framer.push(self._resampler.push(frame.pcm))
        audio = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        audio.sample_rate = self._context.sample_rate
        return b"".join(bytes(packet) for packet in self._context.encode(audio))


def _plain(decoder: str, encoder: str, codec_hz: int) -> AudioCodec:
    """A codec of 64 kb/s: 8 bytes a millisecond, so one byte a tick of the 8 kHz clock (RFC 3551; G.722 too)."""
    return AudioCodec(
        clock_hz=8_000,
        samples_of=len,
        open_decoder=lambda rate_hz: AvDecoder((decoder,), codec_hz, rate_hz),
        open_encoder=lambda rate_hz: AvEncoder(encoder, codec_hz, rate_hz),
    )


CODECS = {
    "audio/opus": AudioCodec(opus.CLOCK_HZ, opus.samples_of, opus.open_decoder, opus.OpusEncoder),
    "audio/g722": _plain("g722", "g722", 16_000),
    "audio/pcmu": _plain("pcm_mulaw", "pcm_mulaw", 8_000),
    "audio/pcma": _plain("pcm_alaw", "pcm_alaw", 8_000),
}


def audio_codec(mime_type: str) -> AudioCodec:
    """Return the codec of a MIME type as SDP names it, in any case. Raise LookupError for one not spoken here."""
    try:
        return CODECS[mime_type.lower()]
    except KeyError:
        raise LookupError(f"no audio codec {mime_type!r}; there are {', '.join(CODECS)}") from None
