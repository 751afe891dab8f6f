"""Opus (RFC 6716, RFC 7587): in through libopus with FEC and loss concealment, out one packet a frame.

libopus is called directly because FFmpeg's wrapper neither reads the in-band FEC nor conceals, and decodes at 48 kHz
only; libopus decodes at 8, 12, 16, 24 or 48 kHz, and mono, whatever was sent. It comes inside PyAV's wheel, or from the
system.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.metadata
import logging
import weakref
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from pipeline.audio import AudioFrame, Pcm
from pipeline.errors import ProtocolError

from .decoder import AvDecoder, Decoder

CLOCK_HZ = 48_000
"""RTP counts Opus at 48 kHz whatever the sound's bandwidth (RFC 7587 section 4.1)."""
MAX_PACKET_MS = 120
BIT_RATE = 40_000
EXPECTED_LOSS_PERCENT = 10
COMPLEXITY = 1
"""Of 10. Per frame 1 costs 155 us where 3 costs 240 and 10 costs 380; spectral distance 4.87, 4.77, 4.68 dB."""
SETTLING_FRAMES = 8
"""Silent frames that are really encoded before one is reused: by then encoder and decoder have forgotten the speech."""

logger = logging.getLogger(__name__)


# --- looking into a packet


def samples_of(payload: bytes) -> int:
    """Return a packet's length at 48 kHz (RFC 6716 section 3.1), 0 if it is malformed or longer than 120 ms."""
    if not payload:
        return 0
    frames = (1, 2, 2, payload[1] & 0x3F if len(payload) > 1 else 0)[payload[0] & 3]
    samples = frames * _frame_samples(payload[0])
    return samples if samples <= CLOCK_HZ * MAX_PACKET_MS // 1000 else 0


def _frame_samples(toc: int) -> int:
    config = toc >> 3
    if config < 12:  # SILK: 10, 20, 40, 60 ms
        return (480, 960, 1920, 2880)[config & 3]
    if config < 16:  # hybrid: 10, 20 ms
        return (480, 960)[config & 1]
    return 120 << (config & 3)  # CELT: 2.5, 5, 10, 20 ms


def carries_fec(payload: bytes) -> bool:
    """Tell whether the packet repeats the sound before it: the LBRR flags of its first frame (RFC 6716 section 4.2.4).

    Packets of an arbitrary frame count (code 3) are not looked into and said to carry none.
    """
    offset = _first_frame(payload)
    if offset is None or offset >= len(payload) or payload[0] >> 3 >= 16:
        return False
    blocks = max(1, _frame_samples(payload[0]) // 960)
    flags = payload[offset]
    mid = flags >> (7 - blocks) & 1
    side = flags >> (6 - 2 * blocks) & 1 if payload[0] & 4 and blocks < 4 else 0
    return bool(mid or side)


def _first_frame(payload: bytes) -> int | None:
    """Return where the first frame's bytes begin; None for code 3 and for an empty frame (DTX)."""
    if len(payload) < 2 or payload[0] & 3 == 3:
        return None
    if payload[0] & 3 < 2:
        return 1
    if payload[1] == 0:
        return None
    return 2 if payload[1] < 252 else 3


# --- decoding


def open_decoder(rate_hz: int) -> Decoder:
    """Return a decoder to mono at ``rate_hz`` (8, 12, 16, 24 or 48 kHz): libopus, else PyAV's without FEC."""
    library = libopus()
    if library is not None:
        return LibopusDecoder(library, rate_hz)
    return AvDecoder(("libopus", "opus"), CLOCK_HZ, rate_hz)


@functools.cache
def libopus() -> ctypes.CDLL | None:
    """Return libopus, the newest first: PyAV's own copy, then the system's; None if neither loads and has it all."""
    for path in _candidates():
        try:
            library = _declare(ctypes.CDLL(path))
        except (OSError, AttributeError) as error:
            logger.debug("libopus at %s is no use: %s", path, error)
            continue
        logger.debug("Opus through %s", path)
        return library
    logger.warning("no libopus: losses of incoming Opus are concealed without its error correction")
    return None


def _candidates() -> Iterator[str]:
    for file in importlib.metadata.files("av") or []:
        if file.name.startswith("libopus"):
            yield str(file.locate())
    yield from ("libopus.so.0", "libopus.0.dylib", "opus.dll")
    if found := ctypes.util.find_library("opus"):
        yield found


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the functions their types (opus.h). Raise AttributeError if one is missing."""
    library.opus_decoder_create.restype = ctypes.c_void_p
    library.opus_decoder_create.argtypes = [ctypes.c_int32, ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
    library.opus_decoder_destroy.restype = None
    library.opus_decoder_destroy.argtypes = [ctypes.c_void_p]
    library.opus_decode.restype = ctypes.c_int
    library.opus_decode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_int16),
        ctypes.c_int,
        ctypes.c_int,
    ]
    return library


class LibopusDecoder:
    """Decode to mono at ``rate_hz``, no resampler involved; about 40 us for 20 ms at 16 kHz."""

    def __init__(self, library: ctypes.CDLL, rate_hz: int) -> None:
        error = ctypes.c_int()
        self._state = library.opus_decoder_create(rate_hz, 1, ctypes.byref(error))
        if error.value:
            raise ValueError(f"libopus cannot decode at {rate_hz} Hz (error {error.value})")
        weakref.finalize(self, library.opus_decoder_destroy, self._state)
        self._decode = library.opus_decode
        self._capacity = rate_hz * MAX_PACKET_MS // 1000
        self._granule = rate_hz // 400
        self._out = np.empty(self._capacity, np.int16)
        self._out_pointer = self._out.ctypes.data_as(ctypes.POINTER(ctypes.c_int16))

    def decode(self, payload: bytes) -> Pcm:
        """Return a packet's sound. Raise ProtocolError if it is not Opus; the decoder stays usable."""
        return self._run(payload, self._capacity, fec=False)

    def conceal(self, samples: int, following: bytes | None) -> Pcm:
        """Return ``samples`` in place of lost ones: from ``following``, else made up from what came before."""
        rounded = min(max(samples // self._granule, 1) * self._granule, self._capacity)  # libopus counts in 2.5 ms
        pcm = self._run(following, rounded, fec=following is not None)
        return np.pad(pcm, (0, max(0, samples - len(pcm))))[:samples]

    def carries_fec(self, payload: bytes) -> bool:
        """See ``opus.carries_fec``."""
        return carries_fec(payload)

    def _run(self, payload: bytes | None, capacity: int, *, fec: bool) -> Pcm:
        count: int = self._decode(self._state, payload, len(payload or b""), self._out_pointer, capacity, fec)
        if count < 0:
            raise ProtocolError(f"undecodable Opus packet of {len(payload or b'')} bytes (libopus error {count})")
        return self._out[:count].copy()


# --- encoding


class OpusEncoder:
    """Encode 20 ms mono frames, one packet each: voice, 40 kb/s, with FEC for 10 % loss.

    Silent frames become one reused packet (encoding silence costs as much as speech) once a few of them were really
    encoded: then the encoder that goes on later and the decoder that heard the copies agree, and nothing clicks.
    """

    def __init__(self, rate_hz: int) -> None:
        self._codec = _open_encoder(rate_hz)
        self._silent_run = 0
        self._silent_packet = b""
        self._pts = 0

    def encode(self, frame: AudioFrame) -> bytes:
        """Return the frame's packet. Does not block; see ``COMPLEXITY`` for its cost."""
        self._silent_run = self._silent_run + 1 if frame.silent else 0
        if self._silent_run <= SETTLING_FRAMES:
            self._silent_packet = self._encode(frame.pcm)
        return self._silent_packet

    def _encode(self, pcm: Pcm) -> bytes:
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = self._codec.sample_rate
        frame.pts = self._pts
        self._pts += len(pcm)
        (packet,) = self._codec.encode(frame)
        return bytes(packet)


def _open_encoder(rate_hz: int) -> av.AudioCodecContext:
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate = rate_hz
    codec.layout = "mono"
    codec.format = "s16"
    codec.bit_rate = BIT_RATE
    codec.time_base = Fraction(1, rate_hz)
    codec.options = {
        "application": "voip",
        "fec": "1",
        "packet_loss": str(EXPECTED_LOSS_PERCENT),
        "frame_duration": "20",
        "compression_level": str(COMPLEXITY),
    }
    codec.open()
    return codec
