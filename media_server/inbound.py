"""One codec's incoming stream: jitter buffer and decoder, and how their items become samples on the caller's axis."""

from __future__ import annotations

from typing import assert_never

from pipeline.audio import Pcm, silence
from pipeline.errors import ProtocolError

from .audio_axis import AudioAxis
from .codecs import AudioCodec
from .jitter import AudioJitterBuffer, Gap, Item, JitterCounters, Lost, Packet


class MicrophoneCounters:
    """``undecodable`` packets, ``pushed_samples`` in all and ``fed_silence_samples`` of them that the clock added."""

    def __init__(self) -> None:
        self.jitter = JitterCounters()
        self.undecodable = 0
        self.pushed_samples = 0
        self.fed_silence_samples = 0

    def as_dict(self) -> dict[str, int]:
        """Return every counter, the jitter buffer's too, by its name."""
        return self.jitter.as_dict() | {
            "undecodable": self.undecodable,
            "pushed_samples": self.pushed_samples,
            "fed_silence_samples": self.fed_silence_samples,
        }


class InboundStream:
    """Decode what a jitter buffer puts in order; what does not decode is concealed and counted."""

    def __init__(self, codec: AudioCodec, rate_hz: int, counters: MicrophoneCounters) -> None:
        self.codec = codec
        self._counters = counters
        self._decoder = codec.open_decoder(rate_hz)
        self.jitter = AudioJitterBuffer(codec.clock_hz, codec.samples_of, self._decoder.carries_fec, counters.jitter)
        self._rate_hz = rate_hz

    def render(self, item: Item, axis: AudioAxis, now_s: float) -> Pcm:
        """Return what the axis has room for of an item's sound."""
        match item:
            case Packet():
                pcm = self._decode(item)
                axis.play(len(pcm), now_s)
                return pcm
            case Lost():
                pcm = self._decoder.conceal(self._to_rate(item.samples), item.following)
                return pcm[len(pcm) - axis.gap(len(pcm), now_s) :]
            case Gap():
                return silence(axis.gap(self._to_rate(item.samples), now_s))
            case _:
                assert_never(item)

    def _decode(self, packet: Packet) -> Pcm:
        try:
            return self._decoder.decode(packet.payload)
        except ProtocolError:
            self._counters.undecodable += 1
            return self._decoder.conceal(self._to_rate(packet.samples), None)

    def _to_rate(self, samples: int) -> int:
        return samples * self._rate_hz // self.codec.clock_hz
