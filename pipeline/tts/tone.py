"""Speaks a steady tone as long as the words would take, at a settable pace: for tests and benchmarks.

Settings: ``VOCAL_TONE_TTFB_MS`` (to the first chunk), ``VOCAL_TONE_RTF`` (seconds of work per second of audio; 0 is
at once), ``VOCAL_TONE_HZ`` (pitch), ``VOCAL_TONE_CHARACTER_MS`` (audio per character at speed 1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from pipeline.audio import VOICE_RATE_HZ, Pcm, to_int16
from pipeline.engines import Settings, Usable, number
from pipeline.errors import NotOffered

CHUNK_SAMPLES = VOICE_RATE_HZ // 25
AMPLITUDE = 0.3


@dataclass(frozen=True, slots=True)
class ToneTextToSpeech:
    """One voice, named ``tone``; the first sample is already loud."""

    ttfb_s: float = 0.0
    real_time_factor: float = 0.0
    pitch_hz: float = 440.0
    character_ms: float = 60.0
    rate_hz: int = VOICE_RATE_HZ

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield 40 ms chunks. Raises NotOffered for a voice but ``tone``."""
        if voice not in (None, "tone"):
            raise NotOffered(f"tts tone has one voice, 'tone', and not {voice!r}")
        await asyncio.sleep(self.ttfb_s)
        samples = round(len(clause.strip()) * self.character_ms / speed * self.rate_hz / 1000)
        for begin in range(0, samples, CHUNK_SAMPLES):
            chunk = self._tone(begin, min(begin + CHUNK_SAMPLES, samples))
            await asyncio.sleep(self.real_time_factor * len(chunk) / self.rate_hz)
            yield chunk

    def _tone(self, begin: int, end: int) -> Pcm:
        phase = 2 * np.pi * self.pitch_hz / self.rate_hz * np.arange(begin, end)
        return to_int16(AMPLITUDE * np.cos(phase))


def describe(settings: Settings) -> Usable:
    """Never chosen by itself: it has no words."""
    return Usable(-1, "a tone, for tests and benchmarks")


def create(settings: Settings) -> ToneTextToSpeech:
    """Read pace and pitch from the settings."""
    return ToneTextToSpeech(
        number(settings, "VOCAL_TONE_TTFB_MS", 0.0) / 1000,
        number(settings, "VOCAL_TONE_RTF", 0.0),
        number(settings, "VOCAL_TONE_HZ", 440.0, least=20.0),
        number(settings, "VOCAL_TONE_CHARACTER_MS", 60.0),
    )
