"""The audio of an utterance while it comes in, for an engine that decodes the whole of it again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm, silence
from pipeline.errors import EngineError

HELD_MAX_SAMPLES = 60 * SPEECH_RATE_HZ
"""What may wait to be decoded; reading stops meanwhile."""

QUIET_SAMPLES = SPEECH_RATE_HZ // 5
"""A pause between words: where a long utterance is cut."""


class Growing:
    """16 kHz audio as it comes. ``ended`` once all of it is there; ``pause_samples`` is a pause to be answered."""

    def __init__(self) -> None:
        self.ended = False
        self.pause_samples: int | None = None
        self._pcm: list[Pcm] = []
        self._samples = 0
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._on_stop: Callable[[], object] = lambda: None

    @property
    def samples(self) -> int:
        """How much is there and not taken yet."""
        return self._samples

    async def hold(self, frames: AsyncIterator[AudioFrame]) -> None:
        """Take all frames. Raises what they raise, and EngineError for another rate."""
        try:
            async for frame in frames:
                await self._hold(frame)
        finally:
            self.ended = True
            self._changed.set()
            self._on_stop()

    async def _hold(self, frame: AudioFrame) -> None:
        if frame.rate_hz != SPEECH_RATE_HZ:
            raise EngineError(f"stt faster_whisper hears {SPEECH_RATE_HZ} Hz, not {frame.rate_hz}")
        self._pcm.append(frame.pcm)
        self._samples += len(frame.pcm)
        self._changed.set()
        if not len(frame.pcm):
            self.pause_samples = frame.pts
            self._on_stop()
        while self._samples > HELD_MAX_SAMPLES:
            self._taken.clear()
            await self._taken.wait()

    def when_stopped(self, call: Callable[[], object]) -> None:
        """Call this (instead of what was given before) at each pause, and when all audio is there."""
        self._on_stop = call

    def take_pause(self) -> int | None:
        """Return the pause to be answered, if any, and forget it."""
        pause_samples, self.pause_samples = self.pause_samples, None
        return pause_samples

    async def reaches(self, samples: int) -> bool:
        """Wait until so much is there, or a pause is to be answered. False if it ended with less."""
        while self._samples < samples and not self.ended and self.pause_samples is None:
            self._changed.clear()
            await self._changed.wait()
        return self._samples >= samples or (self.pause_samples is not None and not self.ended)

    def all(self) -> Pcm:
        """Return what is there."""
        self._pcm = [np.concatenate([silence(0), *self._pcm])]
        return self._pcm[0]

    def take(self, samples: int) -> Pcm:
        """Return the first samples and forget them."""
        whole = self.all()
        self._pcm = [whole[samples:]]
        self._samples -= samples
        self._taken.set()
        return whole[:samples]


def quietest(pcm: Pcm, begin: int) -> int:
    """Return the middle of the quietest fifth of a second from ``begin`` on."""
    energy = np.cumsum(np.square(pcm[begin:], dtype=np.float64))
    within = energy[QUIET_SAMPLES:] - energy[:-QUIET_SAMPLES]
    return begin + int(np.argmin(within)) + QUIET_SAMPLES // 2
