"""An uploaded sound on its way to 16 kHz samples: at once where its format allows, else when it is whole.

At once: mono 16 kHz s16le, either headerless and declared to be (`is_headerless`) or as a WAV with the plain 44-byte
header. Everything else is decoded by `pipeline.sound_file`, in a process of its own.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Literal

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, Pcm, silence
from pipeline.errors import ProtocolError
from pipeline.sound_file import SoundLimits, decode
from pipeline.tasks import closing

from .multipart import Part

HEADERLESS = "s16le"
HEADERLESS_TYPE = "audio/pcm"
HEADERLESS_NAMES = (".pcm", ".raw")

SOUND_MAX_BYTES = 25 * 1024 * 1024
LIMITS = SoundLimits(source_bytes=SOUND_MAX_BYTES, duration_s=900.0)

_WAV = struct.Struct("<4s4x4s4sIHHI4x2xH4sI")
_PLAIN = (b"RIFF", b"WAVE", b"fmt ", 16, 1, 1, SPEECH_RATE_HZ, 16, b"data")
"""Its fields but for the lengths: 16 bytes of format, PCM, mono, 16 kHz, 16 bits."""
_UNKNOWN_FROM_BYTES = 0x7FFF_0000
"""A WAV whose writer could not go back to fill in its length announces 2 or 4 GiB, or nothing."""


def is_headerless(part: Part, declared: str) -> bool:
    """Tell whether a part is s16le without a header.

    It is where ``declared`` (the form's field ``format``) says ``s16le``, its Content-Type is ``audio/pcm``, or its
    file is named ``.pcm`` or ``.raw``. Raises ProtocolError for another format, and for a ``rate`` but 16000.
    """
    if declared not in ("", HEADERLESS):
        raise ProtocolError(f"format is {HEADERLESS!r}, or left out for files that say what they are", param="format")
    named = part.filename.lower().endswith(HEADERLESS_NAMES)
    if not (declared or part.content_type == HEADERLESS_TYPE or named):
        return False
    if part.rate not in ("", str(SPEECH_RATE_HZ)):
        raise ProtocolError(f"headerless sound must be {SPEECH_RATE_HZ} Hz, mono, s16le", param="file")
    return True


async def samples_of(pieces: AsyncIterator[bytes], *, headerless: bool) -> AsyncIterator[Pcm]:
    """Yield an upload's samples as soon as they can be had, and none for a piece that is empty: a pause.

    Raises ProtocolError, see `ArrivingSound.end`.
    """
    sound = ArrivingSound(headerless=headerless)
    async with closing(pieces):
        async for octets in pieces:
            if len(pcm := sound.push(octets)) or not octets:
                yield pcm
    if len(pcm := await sound.end()):
        yield pcm


class ArrivingSound:
    """Push bytes, cut anywhere; get the samples that are ready. ``end`` gives the rest."""

    def __init__(self, *, headerless: bool) -> None:
        self._bytes = bytearray()
        self._form: Literal["unknown", "s16le", "container"] = "s16le" if headerless else "unknown"
        self._missing_bytes: int | None = None
        """What a WAV announced and has not brought yet; None where nothing was announced."""
        self._empty = True

    def push(self, octets: bytes) -> Pcm:
        """Add bytes. Never blocks."""
        self._bytes += octets
        if self._form == "unknown" and len(self._bytes) >= _WAV.size:
            self._look_at_head()
        return self._take() if self._form == "s16le" else silence(0)

    async def end(self) -> Pcm:
        """Return what is left. Raises ProtocolError for what holds no sound, or less than it announced."""
        if self._form != "s16le":
            source, self._bytes = bytes(self._bytes), bytearray()
            return await decode(source, SPEECH_RATE_HZ, LIMITS)
        if self._bytes:
            raise ProtocolError("the sound ends within a sample: s16le has 2 bytes each", param="file")
        if self._missing_bytes:
            raise ProtocolError(f"the file is truncated: {self._missing_bytes} bytes are missing", param="file")
        if self._empty:
            raise ProtocolError("the file is empty: send a sound file", param="file")
        return silence(0)

    def _look_at_head(self) -> None:
        *head, size = _WAV.unpack_from(self._bytes)
        if tuple(head) != _PLAIN:
            self._form = "container"
            return
        self._form = "s16le"
        self._missing_bytes = size if 0 < size < _UNKNOWN_FROM_BYTES else None
        del self._bytes[: _WAV.size]

    def _take(self) -> Pcm:
        """Take the whole samples, and no more than were announced: other chunks may follow them in a WAV."""
        usable = len(self._bytes) if self._missing_bytes is None else min(len(self._bytes), self._missing_bytes)
        taken = usable - usable % 2
        pcm = np.frombuffer(bytes(self._bytes[:taken]), "<i2").astype(np.int16, copy=False)
        self._empty &= not taken
        del self._bytes[:taken]
        if self._missing_bytes is not None:
            self._missing_bytes -= taken
            if not self._missing_bytes:
                self._bytes.clear()
        return pcm
