"""What no server can be faster than, whatever it is made of, for the caller and the rules of this benchmark.

Added to the silence rule:

- The rule is met inside a packet, and known when that packet is there: 0 to 20 ms later, 10 in the mean.
- Opus looks ahead: what is decoded lies 6.5 ms behind what was spoken. (The fading end of the caller's tone is no
  longer loud, which takes a millisecond off; a sharp one would ring on.)
- The answer costs nothing more: its samples are there at once, so its first packet leaves at once, and is audible.
  (In it, the first sound lies behind by the encoder's look-ahead, once more: that is heard, but in no row here.)
- Models begin with the last sample at the earliest, so what they take beyond the rule is added, and the rest is hidden.

Added to the speech that interrupts is the same packet and look-ahead; and as packets leave each 20 ms, the last one
has left 0 to 20 ms before the moment of the decision. The first two parts are not modelled but taken from the codec
itself: the caller's speech is encoded and decoded with its end (its beginning) at each place in a packet.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from media_server.opus import OpusEncoder, open_decoder
from pipeline.audio import AudioFrame, Pcm

from .measuring_caller import FORMAT, speech
from .stand_ins import LOUD, Rules

DECODED_HZ = 48_000
PLACES = 40
LEAD_FRAMES = 10
SPEECH_FRAMES = 15
PTIME_MS = FORMAT.ptime_ms


@dataclass(frozen=True, slots=True)
class Floor:
    """``response_ms`` is added to the silence rule, ``barge_in_ms`` is in all; a figure for each place in a packet."""

    response_ms: NDArray[np.float64]
    barge_in_ms: NDArray[np.float64]
    codec_ms: float
    """How far the last loud sample lies behind the last one spoken, median."""
    packet_ms: float
    """From the moment the rule is met until that packet is there, mean."""
    models_ms: float
    """What the models take beyond the rule."""


def floor(rules: Rules) -> Floor:
    """Return the floor under these rules."""
    places = np.arange(PLACES) * FORMAT.frame_samples // PLACES
    edges_ms = np.array([_edges_ms(int(place)) for place in places])
    onset_ms, offset_ms, begun_ms, ended_ms = edges_ms.T
    models_ms = max(0.0, rules.models_ms - rules.silence_ms)
    met_ms = offset_ms + rules.silence_ms
    response_ms = _arrived(met_ms) - ended_ms - rules.silence_ms + models_ms
    heard_ms = _arrived(onset_ms + rules.speech_ms) - begun_ms
    since_ms = np.arange(PLACES) * PTIME_MS / PLACES
    return Floor(
        response_ms,
        (heard_ms[:, None] - since_ms[None, :]).ravel(),
        float(np.median(offset_ms - ended_ms)),
        float(np.mean(_arrived(met_ms) - met_ms)),
        models_ms,
    )


def _arrived(at_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return when the packet that carries this moment is there: as its last sample has been spoken."""
    return np.ceil(at_ms / PTIME_MS) * PTIME_MS


@functools.cache
def _edges_ms(place: int) -> tuple[float, float, float, float]:
    """Speak from and to ``place`` in a packet; return first and last loud moment decoded, first and last spoken."""
    spoken = range(
        LEAD_FRAMES * FORMAT.frame_samples + place, (LEAD_FRAMES + SPEECH_FRAMES) * FORMAT.frame_samples + place
    )
    encoder, decoder = OpusEncoder(FORMAT.rate_hz), open_decoder(DECODED_HZ)
    heard: list[Pcm] = []
    for n in range(2 * LEAD_FRAMES + SPEECH_FRAMES):
        pts = n * FORMAT.frame_samples
        pcm = speech(spoken, pts)
        heard.append(decoder.decode(encoder.encode(AudioFrame(pcm, FORMAT.rate_hz, pts, silent=not pcm.any()))))
    loud = np.flatnonzero(np.abs(np.concatenate(heard).astype(np.int32)) > LOUD * 32768)
    ms = DECODED_HZ / 1000
    return loud[0] / ms, (loud[-1] + 1) / ms, spoken.start * 1000 / FORMAT.rate_hz, spoken.stop * 1000 / FORMAT.rate_hz
