"""A reply's end of the playout: clauses go in, samples come out, and what was heard is counted per clause."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Protocol

import numpy as np

from .audio import AudioFormat, Pcm, silence
from .resample import Resampler

LEADING_SILENCE_MS = 10
AUDIBLE = 100
"""Int16 amplitude (-50 dBFS) from which a sample counts as audible for trimming."""
CHARS_PER_S = 15.0
"""How fast speech goes until this voice's own rate is known; for clauses that are still being made."""

_CUT_WORD = re.compile(r"[^\s\u0e00-\u0eff\u3000-\u30ff\u3400-\u9fff\uff00-\uff65]+$")
"""A word up to the end of the text: not of Thai, Lao, Chinese or Japanese."""


class _Output(Protocol):
    format: AudioFormat
    high_water_s: float
    in_flight_ms: float

    def wake(self) -> None: ...
    def settle(self, writer: Writer) -> None: ...
    def fade_out(self, writer: Writer) -> None: ...


class _Clause:
    """Words and how much of their sound was made and has left."""

    __slots__ = ("text", "written_samples", "played_samples", "complete")

    def __init__(self, text: str) -> None:
        self.text = text
        self.written_samples = 0
        self.played_samples = 0
        self.complete = False


class Writer:
    """The right to speak. Revoked for good by ``Playout.clear()``; every later call is then a no-op."""

    def __init__(self, reply: int, rate_hz: int, output: _Output, *, held: bool) -> None:
        self.reply = reply
        self.revoked = False
        self.held = held
        self._output = output
        self._resampler = Resampler(rate_hz, output.format.rate_hz)
        self._clauses: list[_Clause] = []
        self._queue: deque[tuple[_Clause, Pcm]] = deque()
        self._finished = False
        self._progress = asyncio.Event()

    # --- the reply writes

    def begin(self, text: str) -> None:
        """Start a clause; what is written next are its words' sound."""
        self._clauses.append(_Clause(text))

    async def write(self, pcm: Pcm) -> None:
        """Queue sound at the voice's rate; waits while more than ``high_water_s`` is queued. Canceling is safe."""
        while not self.revoked and self.queued_s > self._output.high_water_s:
            self._progress.clear()
            await self._progress.wait()
        if not self.revoked:
            self._append(self._resampler.push(pcm))

    def end(self) -> None:
        """The clause is complete: its length is known."""
        if not self.revoked and self._clauses:
            self._append(self._resampler.flush())
            self._clauses[-1].complete = True
            self._output.wake()  # less than a frame may have been waiting for this
            self._output.settle(self)

    def finish(self) -> None:
        """The reply is complete: when its last sample has left, it is drained."""
        self._finished = True
        self._output.settle(self)

    def _append(self, pcm: Pcm) -> None:
        clause = self._clauses[-1]
        if len(self._clauses) == 1 and not clause.written_samples:
            pcm = _trim(pcm, self._output.format.rate_hz)
        if len(pcm):
            clause.written_samples += len(pcm)
            self._queue.append((clause, pcm))
            self._output.wake()

    # --- the session steers

    def hold(self) -> None:
        """Stop playing (after a 5 ms fade) and keep everything."""
        if not self.held:
            self._output.fade_out(self)
            self.held = True

    def release(self) -> None:
        """Play on from where it was held."""
        if self.held and not self.revoked:
            self.held = False
            self._output.wake()
            self._output.settle(self)

    def duck(self) -> None:
        """Go on softer."""

    def unduck(self) -> None:
        """Go on softer."""

    def revoke(self) -> None:
        """Take the right to speak away. Called by ``Playout.clear``."""
        self.revoked = True
        self._queue.clear()
        self._progress.set()

    # --- the clock takes

    @property
    def ready(self) -> bool:
        """Whether a frame may leave now: a whole one, or the last part of a clause."""
        if self.held or not self._queue:
            return False
        return self._queue[0][0].complete or self._queued_samples() >= self._output.format.frame_samples

    @property
    def started(self) -> bool:
        """Whether any sample has left."""
        return any(clause.played_samples for clause in self._clauses)

    @property
    def sounding(self) -> bool:
        """Whether the listener is hearing it now, so that stopping needs a fade."""
        return self.started and self.ready

    @property
    def drained(self) -> bool:
        """Whether the reply is complete and its last sample has left."""
        return self._finished and not self._queue and not self.held and not self.revoked

    @property
    def queued_s(self) -> float:
        """Seconds of sound waiting."""
        return self._queued_samples() / self._output.format.rate_hz

    def _queued_samples(self) -> int:
        """Counted per clause: there are few of them, and hundreds of pieces in the queue."""
        return 0 if self.revoked else sum(c.written_samples - c.played_samples for c in self._clauses)

    def peek(self, samples: int) -> Pcm:
        """Return up to ``samples`` of what would be played next, without taking it."""
        return self._queue[0][1][:samples].copy() if self._queue else silence(0)

    def take(self, out: Pcm) -> list[str]:
        """Fill ``out`` from the queue; return the texts of the clauses whose first sample is in it."""
        begun: list[str] = []
        filled = 0
        while filled < len(out) and self._queue:
            clause, pcm = self._queue.popleft()
            part = pcm[: len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            if not clause.played_samples:
                begun.append(clause.text)
            clause.played_samples += len(part)
            if len(part) < len(pcm):
                self._queue.appendleft((clause, pcm[len(part) :]))
        self._progress.set()
        return begun

    # --- what was heard

    def heard(self) -> str:
        """Return the words that have reached the listener: whole clauses, and whole words of the one cut off."""
        left = self._in_flight_samples()
        heard: list[str] = []
        for clause in reversed(self._clauses):
            late = min(left, clause.played_samples)
            left -= late
            heard.append(self._heard_of(clause, clause.played_samples - late))
        return " ".join(text for text in reversed(heard) if text)

    def _in_flight_samples(self) -> int:
        return 0 if self.drained else int(self._output.in_flight_ms * self._output.format.rate_hz / 1000)

    def _heard_of(self, clause: _Clause, samples: int) -> str:
        total = self._total_samples(clause)
        if samples >= total:
            return clause.text
        chars = int(len(clause.text) * samples / total)
        return clause.text[:chars] if clause.text[chars : chars + 1].isspace() else _whole_words(clause.text[:chars])

    def _total_samples(self, clause: _Clause) -> int:
        if clause.complete:
            return max(1, clause.written_samples)
        return max(1, clause.written_samples, int(len(clause.text) / self._chars_per_s() * self._output.format.rate_hz))

    def _chars_per_s(self) -> float:
        done = [c for c in self._clauses if c.complete and c.written_samples]
        samples = sum(c.written_samples for c in done)
        return sum(len(c.text) for c in done) * self._output.format.rate_hz / samples if samples else CHARS_PER_S


def _whole_words(text: str) -> str:
    """Drop the word that was cut; scripts without spaces are cut between characters."""
    return _CUT_WORD.sub("", text).rstrip()


def _trim(pcm: Pcm, rate_hz: int) -> Pcm:
    """Shorten leading silence to 10 ms; all of it if nothing is audible yet."""
    audible = np.flatnonzero(np.abs(pcm.astype(np.int32)) >= AUDIBLE)
    if not len(audible):
        return silence(0)
    return pcm[max(0, int(audible[0]) - rate_hz * LEADING_SILENCE_MS // 1000) :]
