"""Playout: the one place where the agent's speech meets time.

A transport pulls frames; a reply writes through its ``Writer``, the right to speak, of which at most one is live.
``clear()`` takes that right away in one synchronous step: the next frame is silent (after a fade of 5 ms), later writes
do nothing, and what was heard is known. A *held* writer collects but is not played: that one flag is both a reply
prepared before the turn is over and a pause while the caller may be interrupting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .audio import AudioFormat, AudioFrame, Pcm, silence
from .clock import FrameClock
from .gain import FADE_MS, rise, scaled
from .writer import Writer

TIMER_S = 0.001
"""What timers are good for: uvloop's count whole milliseconds, and waiting for less would only spin."""


@dataclass(frozen=True, slots=True)
class PlayoutListener:
    """What the clock tells; each is called synchronously as the frame in question leaves."""

    audio_started: Callable[[Writer], None] = lambda writer: None
    clause_started: Callable[[Writer, str], None] = lambda writer, text: None
    drained: Callable[[Writer], None] = lambda writer: None
    left: Callable[[AudioFrame], None] = lambda frame: None
    """Silent ones, too."""


class Playout:
    """Release one frame per ptime, from the live writer or silent.

    ``lead_ms`` is how early speech may leave, the only knob of a transport: 0 for RTP, 60-120 for WebSockets.
    ``high_water_s`` bounds what a writer may queue. ``in_flight_ms`` (set by the transport at any time) is how much of
    what left has not reached the listener's ear yet; it only matters for what counts as heard.
    """

    def __init__(self, output: AudioFormat, lead_ms: int = 0, high_water_s: float = 30.0) -> None:
        self.format = output
        self.high_water_s = high_water_s
        self.in_flight_ms = float(lead_ms)
        self.clock = FrameClock(output.ptime_ms, output.frame_samples, lead_ms)
        self.listener = PlayoutListener()
        self._writer: Writer | None = None
        self._wake = asyncio.Event()
        self._fade: Pcm = silence(0)

    def open(self, reply: int, *, rate_hz: int | None = None, held: bool = False) -> Writer:
        """Give ``reply`` the right to speak; whoever had it is revoked. ``rate_hz`` is the voice's rate."""
        self.clear()
        self._writer = Writer(reply, rate_hz or self.format.rate_hz, self, held=held)
        return self._writer

    @property
    def writer(self) -> Writer | None:
        """The live writer."""
        return self._writer

    def clear(self) -> Writer | None:
        """Drop everything queued and revoke the live writer. Synchronous; returns it, so ``heard()`` can be asked."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self.fade_out(writer)
            writer.revoke()
        self._wake.set()
        return writer

    def fade_out(self, writer: Writer) -> None:
        """Let the sound that is being heard end in 5 ms instead of a click, unless it is about to."""
        if writer.sounding and not len(self._fade):
            tail = writer.peek(self.format.rate_hz * FADE_MS // 1000)
            self._fade = scaled(tail, 1 - rise(len(tail)))

    def wake(self) -> None:
        """Look again at what there is to play. Called by the writer."""
        self._wake.set()

    async def next_frame(self) -> AudioFrame:
        """Wait until the next frame is due and return it. One consumer; canceling loses nothing."""
        loop = asyncio.get_running_loop()
        while (wait_s := self.clock.wait_s(loop.time(), speech=self._has_speech())) > TIMER_S:
            self._wake.clear()
            timer = loop.call_later(wait_s, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
        return self._take(loop.time())

    def _has_speech(self) -> bool:
        return self._writer is not None and self._writer.ready

    def _take(self, now_s: float) -> AudioFrame:
        writer = self._writer
        speech = self._has_speech()
        pts = self.clock.tick(now_s, speech=speech)
        pcm = silence(self.format.frame_samples)
        silent = not speech and not len(self._fade)
        if writer is not None and speech:
            self._play(writer, pcm)
        elif writer is not None:
            writer.fall_silent(len(pcm))
        self._mix_fade(pcm)
        frame = AudioFrame(pcm, self.format.rate_hz, pts, silent)
        self.listener.left(frame)
        return frame

    def _mix_fade(self, pcm: Pcm) -> None:
        """Add it to what follows. A reply that was held and let go at once fades out and in, and so is whole."""
        if end := len(self._fade):
            mixed = pcm[:end].astype(np.int32) + self._fade
            pcm[:end] = np.clip(mixed, -32768, 32767)
            self._fade = silence(0)

    def _play(self, writer: Writer, pcm: Pcm) -> None:
        first = not writer.started
        begun = writer.take(pcm)
        if first:
            self.listener.audio_started(writer)
        for text in begun:
            self.listener.clause_started(writer, text)
        self.settle(writer)

    def settle(self, writer: Writer) -> None:
        """Give the right to speak back if the reply is complete and its last sample has left."""
        if writer is self._writer and writer.drained:
            self._writer = None
            self.listener.drained(writer)
