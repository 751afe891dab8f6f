"""The agent's voice as the spec's APIs carry it in JSON."""

from __future__ import annotations

import base64
from typing import Any

from pipeline.audio import VOICE_RATE_HZ, Pcm, to_float32


def audio_chunk(pcm: Pcm, timestamp_s: float) -> dict[str, Any]:
    """Return sound at 24 kHz as an ``audio_chunk``; ``timestamp_s`` is when it was made, in seconds since 1970."""
    return {
        "type": "audio_chunk",
        "chunk": base64.b64encode(to_float32(pcm).astype("<f4", copy=False).tobytes()).decode(),
        "format": "pcm_f32le",
        "sample_rate": VOICE_RATE_HZ,
        "timestamp": timestamp_s,
    }
