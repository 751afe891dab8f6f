"""Remedies for what the WebRTC libraries do wrong under loss, delay or malice, applied once at start.

Each remedy is one small function named after what it cures; its docstring says what happens without it. They live
by layer in ``hardening_ice``, ``hardening_dtls`` and ``hardening_sctp``. All of them check what they rely on and
raise LibraryChanged where a library is no longer the one that was read, so an upgrade fails at start, not in a call.
"""

from __future__ import annotations

import functools

from aiortc.codecs import CODECS
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from . import hardening_dtls, hardening_ice, hardening_sctp
from .patching import LibraryChanged, require_versions

VERSIONS = {"aiortc": "1.16", "aioice": "0.13"}

OPUS_PARAMETERS: dict[str, int | str | None] = {"minptime": 10, "useinbandfec": 1, "maxaveragebitrate": "40000"}


def opus_without_forward_error_correction() -> None:
    """Ask for Opus with forward error correction at up to 40 kb/s, in offers and answers (RFC 7587 section 6.1).

    Without ``useinbandfec=1`` browsers send no forward error correction, and a lost packet is 20 ms of speech that
    nothing can bring back; without a ceiling some send stereo at music rates.
    """
    opus().parameters = dict(OPUS_PARAMETERS)


def opus() -> RTCRtpCodecParameters:
    """Return the library's own description of Opus. Raises LibraryChanged if it has none."""
    for codec in CODECS["audio"]:
        if codec.mimeType == "audio/opus" and codec.clockRate == 48000:
            return codec
    raise LibraryChanged("aiortc no longer offers audio/opus at 48 kHz")


REMEDIES = (
    opus_without_forward_error_correction,
    *hardening_ice.REMEDIES,
    *hardening_dtls.REMEDIES,
    *hardening_sctp.REMEDIES,
)


@functools.cache
def apply() -> None:
    """Apply every remedy; a second call does nothing. Raises LibraryChanged."""
    require_versions(VERSIONS)
    for remedy in REMEDIES:
        remedy()
