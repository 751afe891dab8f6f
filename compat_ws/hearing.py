"""The caller's sound on its way into the session: never too fast, never too much at once, and never missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import WSCloseCode

from pipeline.audio import SPEECH_RATE_HZ, Pcm, silence
from signaling.rate_limit import TokenBucket

from .client_socket import Ending
from .pauses import Pauses

PIECE_SAMPLES = SPEECH_RATE_HZ // 10
"""What is pushed before others have their turn: some milliseconds of speech detection."""
MAX_AHEAD_S = 60.0
SPEED = 1.01
"""How much faster than ours a client's clock may run for ever."""


class Hearing:
    """``push`` takes 16 kHz samples, synchronously. Both methods are the reader's: nothing is pushed between."""

    def __init__(self, push: Callable[[Pcm], None]) -> None:
        self._push = push
        self._clock = asyncio.get_running_loop().time
        self._allowance = TokenBucket(MAX_AHEAD_S, SPEED, self._clock())
        self._pauses = Pauses()

    @property
    def deadline_s(self) -> float | None:
        """When, by the loop's clock, ``wait_no_longer`` is due if nothing comes until then; None: never."""
        return self._pauses.deadline_s

    async def sound(self, pcm: Pcm) -> None:
        """Hear a piece of any length. Raises Ending for a client that is too far ahead of time."""
        seconds = len(pcm) / SPEECH_RATE_HZ
        if self._allowance.take(self._clock(), seconds) > 0:
            error = f"sound came more than {MAX_AHEAD_S:g} s ahead of time: send it as fast as it is spoken"
            raise Ending("too fast", WSCloseCode.POLICY_VIOLATION, error)
        await self._push_in_turn(pcm)
        self._pauses.heard(seconds, self._clock())

    async def wait_no_longer(self) -> None:
        """Hear the silence of a caller who sends nothing."""
        await self._push_in_turn(silence(round(self._pauses.owed_s(self._clock()) * SPEECH_RATE_HZ)))

    async def _push_in_turn(self, pcm: Pcm) -> None:
        for begin in range(0, len(pcm), PIECE_SAMPLES):
            if begin:
                await asyncio.sleep(0)
            self._push(pcm[begin : begin + PIECE_SAMPLES])
