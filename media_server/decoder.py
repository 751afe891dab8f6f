"""What the microphone needs of a decoder, and the one that PyAV provides for every codec."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from av import AudioCodecContext, AudioFrame, CodecContext, FFmpegError, Packet
from numpy.typing import NDArray

from pipeline.audio import Pcm, silence, to_int16
from pipeline.errors import ProtocolError
from pipeline.resample import Resampler

FADE_OUT_MS = 60
JOIN_MS = 5
PITCH_MS = (2.5, 15.0)


class Decoder(Protocol):
    """Decode one peer's stream, packet after packet, to mono at a rate chosen when it was opened."""

    def decode(self, payload: bytes) -> Pcm:
        """Return a packet's sound. Raise ProtocolError if it is none; the decoder stays usable."""

    def conceal(self, samples: int, following: bytes | None) -> Pcm:
        """Return ``samples`` in place of lost ones, taken from ``following`` where ``carries_fec`` said so."""

    def carries_fec(self, payload: bytes) -> bool:
        """Tell whether this decoder can take the sound before ``payload`` out of ``payload``."""


class AvDecoder:
    """Decode with PyAV at the codec's own rate, resample, conceal losses by repeating the last pitch period.

    ``codecs`` are FFmpeg decoder names, the first that exists is taken.
    """

    def __init__(self, codecs: tuple[str, ...], codec_hz: int, rate_hz: int) -> None:
        self._context = _open_context(codecs, codec_hz)
        self._resampler = Resampler(codec_hz, rate_hz)
        self._concealer = Concealer(rate_hz)

    def decode(self, payload: bytes) -> Pcm:
        """Return a packet's sound; the resampler withholds up to 2 ms of the stream."""
        try:
            frames = self._context.decode(Packet(payload))
        except FFmpegError as error:
            raise ProtocolError(f"undecodable audio packet of {len(payload)} bytes: {error}") from error
        parts = [self._resampler.push(_mono(frame)) for frame in frames]
        return self._concealer.join(np.concatenate(parts) if parts else silence(0))

    def conceal(self, samples: int, following: bytes | None) -> Pcm:
        """Repeat the last pitch period, fading out over 60 ms."""
        return self._concealer.make_up(samples)

    def carries_fec(self, payload: bytes) -> bool:
        """Return False: FFmpeg's decoders do not read it."""
        return False


def _open_context(codecs: tuple[str, ...], codec_hz: int) -> AudioCodecContext:
    for name in codecs:
        try:
            context = CodecContext.create(name, "r")
        except ValueError:  # PyAV: this build does not have it
            continue
        assert isinstance(context, AudioCodecContext)
        context.format = "s16"
        context.layout = "mono"
        context.sample_rate = codec_hz
        return context
    raise LookupError(f"PyAV has none of the decoders {', '.join(codecs)}")


def _mono(frame: AudioFrame) -> Pcm:
    """Return a frame of any layout as mono int16; FFmpeg's own Opus decoder yields planar floats."""
    channels = len(frame.layout.channels)
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    mono = array[:, 0] if channels == 1 else array.mean(axis=1)
    return to_int16(mono.astype(np.float32)) if array.dtype.kind == "f" else mono.astype(np.int16)


class Concealer:
    """Make up lost sound by repeating the last pitch period, joined without a click (after ITU-T G.711 Appendix I)."""

    def __init__(self, rate_hz: int) -> None:
        self._fade_samples = rate_hz * FADE_OUT_MS // 1000
        self._join_samples = rate_hz * JOIN_MS // 1000
        self._lags = range(int(rate_hz * PITCH_MS[0] / 1000), int(rate_hz * PITCH_MS[1] / 1000))
        self._history: NDArray[np.float32] = np.zeros(self._lags.stop + self._join_samples, np.float32)
        self._period: NDArray[np.float32] = self._history[:0]
        self._made_up_samples = 0

    def make_up(self, samples: int) -> Pcm:
        """Return the next ``samples`` of what might have been said; silence after 60 ms."""
        if not self._made_up_samples:
            self._period = self._history[-self._pitch_lag() :]
        made_up = self._extrapolate(samples)
        self._made_up_samples += samples
        return made_up.astype(np.int16)

    def join(self, pcm: Pcm) -> Pcm:
        """Take received sound; return it, blended over 5 ms with what was made up before."""
        if self._made_up_samples and len(pcm):
            pcm = self._blend(pcm)
            self._made_up_samples = 0
        self._history = np.concatenate([self._history, pcm])[-len(self._history) :]
        return pcm

    def _blend(self, pcm: Pcm) -> Pcm:
        samples = min(self._join_samples, len(pcm))
        weight = np.linspace(0, 1, samples, dtype=np.float32)
        head = pcm[:samples] * weight + self._extrapolate(samples) * (1 - weight)
        return np.concatenate([head.astype(np.int16), pcm[samples:]])

    def _extrapolate(self, samples: int) -> NDArray[np.float32]:
        index = np.arange(self._made_up_samples, self._made_up_samples + samples)
        gain = np.clip(1 - index / self._fade_samples, 0, 1).astype(np.float32)
        return self._period[index % len(self._period)] * gain

    def _pitch_lag(self) -> int:
        """Return the shift at which the last 5 ms resemble the past most (normalized cross-correlation)."""
        target = self._history[-self._join_samples :]
        windows = np.lib.stride_tricks.sliding_window_view(self._history, self._join_samples)
        past = windows[[len(windows) - 1 - lag for lag in self._lags]]
        likeness = past @ target / np.sqrt((past * past).sum(axis=1) + 1)
        return self._lags[int(np.argmax(likeness))]
