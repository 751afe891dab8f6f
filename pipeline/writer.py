"""A reply's end of the playout: the right to speak. Clauses go in at the voice's rate, frames come out."""

from __future__ import annotations

import asyncio
from typing import Protocol

from .audio import AudioFormat, Pcm
from .gain import DUCKED, FADE_MS, UNDUCK_MS, Gain, scaled
from .resample import Resampler
from .speech_queue import SpeechQueue
from .text import SENTENCE_PAUSE_MS


class _Output(Protocol):
    format: AudioFormat
    high_water_s: float
    in_flight_ms: float

    def wake(self) -> None: ...
    def settle(self, writer: Writer) -> None: ...
    def fade_out(self, writer: Writer) -> None: ...


class Writer:
    """The right to speak. Revoked for good by ``Playout.clear()``; every later call is then a no-op."""

    def __init__(self, reply: int, rate_hz: int, output: _Output, *, held: bool) -> None:
        self.reply = reply
        self.revoked = False
        self.held = held
        self._output = output
        self._resampler = Resampler(rate_hz, output.format.rate_hz)
        self._queue = SpeechQueue(output.format.rate_hz)
        self._gain = Gain(output.format.rate_hz)
        self._finished = False
        self._progress = asyncio.Event()

    # --- the reply writes

    def begin(self, text: str, longest_pause_ms: float = SENTENCE_PAUSE_MS) -> None:
        """Start a clause; what is written next are its words' sound. A longer pause behind it is cut to this length."""
        if not self.revoked:
            self._queue.begin(text, longest_pause_ms)

    async def write(self, pcm: Pcm) -> None:
        """Queue sound at the voice's rate; waits while more than ``high_water_s`` is queued. Canceling is safe."""
        while not self.revoked and self.queued_s > self._output.high_water_s:
            self._progress.clear()
            await self._progress.wait()
        if not self.revoked:
            self._append(self._resampler.push(pcm))

    def end(self) -> None:
        """The clause is complete: its length is known.

        The resampler goes on, so that clauses of a voice that joins them are one stream across their seam as well.
        """
        if not self.revoked:
            self._queue.end(self._resampler.withheld_samples)
            self._output.wake()  # less than a frame may have been waiting for this
            self._output.settle(self)

    def finish(self) -> None:
        """The reply is complete: when its last sample has left, it is drained."""
        self._finished = True
        if not self.revoked:
            self._append(self._resampler.flush())
            self._queue.finish()
            self._output.settle(self)

    def _append(self, pcm: Pcm) -> None:
        if self._queue.append(pcm):
            self._output.wake()

    # --- the session steers

    def hold(self) -> None:
        """Stop playing (after a 5 ms fade) and keep everything."""
        if not self.held:
            self._output.fade_out(self)
            self.held = True
            if self.started:
                self._gain.move(0.0, within_ms=0)

    def release(self) -> None:
        """Play on from the sample where it was held, faded in over 5 ms, and at full level even if it was ducked."""
        if self.held and not self.revoked:
            self.held = False
            self._gain.move(1.0, FADE_MS)
            self._output.wake()
            self._output.settle(self)

    def duck(self) -> None:
        """Go on 12 dB softer, from the next frame's first 5 ms on. One that is held is silent already: a no-op."""
        if not self.held:
            self._gain.move(DUCKED, FADE_MS)

    def unduck(self) -> None:
        """Come back to full level within 60 ms. A no-op unless ducked."""
        if not self.held:
            self._gain.move(1.0, UNDUCK_MS)

    def revoke(self) -> None:
        """Take the right to speak away. Called by ``Playout.clear``."""
        self.revoked = True
        self._queue.clear()
        self._progress.set()

    # --- the clock takes

    @property
    def ready(self) -> bool:
        """Whether a frame may leave now: a whole one, or the last part of a clause."""
        return not self.held and self._queue.holds(self._output.format.frame_samples)

    @property
    def started(self) -> bool:
        """Whether any sample has left."""
        return self._queue.started

    @property
    def sounding(self) -> bool:
        """Whether the listener is hearing it now, so that stopping needs a fade."""
        return self.started and self.ready

    @property
    def drained(self) -> bool:
        """Whether the reply is complete and its last sample has left."""
        return self._finished and not len(self._queue) and not self.held and not self.revoked

    @property
    def queued_s(self) -> float:
        """Seconds of sound waiting."""
        return len(self._queue) / self._output.format.rate_hz

    def peek(self, samples: int) -> Pcm:
        """Return what would be played next, as loud as it is now, without taking it."""
        return scaled(self._queue.peek(samples), self._gain.now)

    def take(self, out: Pcm) -> list[str]:
        """Fill ``out`` from the queue; return the texts of the clauses whose first sample is in it."""
        filled, begun = self._queue.take(out)
        self._gain.apply(out[:filled])
        self._progress.set()
        return begun

    def fall_silent(self, samples: int) -> None:
        """A silent frame left instead."""
        self._queue.fall_silent(samples)

    def heard(self) -> str:
        """Return the words that have reached the listener: whole clauses, and whole words of the one cut off."""
        return self._queue.heard(0 if self.drained else self._samples(self._output.in_flight_ms))

    def heard_lately(self, ms: float) -> str:
        """Return the words that reached the listener, or are doing so, in the last so many ms of sound; cf. ``heard``.

        The clause that goes on is there to its end. Empty if they have heard nothing yet.
        """
        return self._queue.heard_lately(self._samples(ms), self._samples(self._output.in_flight_ms))

    def _samples(self, ms: float) -> int:
        return int(self._output.format.rate_hz * ms / 1000)
