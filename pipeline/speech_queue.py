"""The sound of a reply on its way out, clause by clause, and what of its words was heard.

Silence at the edges of clauses is an engine's habit: some begin with a third of a second of it, some end with more. It
is brought within bounds here; nothing is ever added, for what an engine knows of pauses is better than a rule.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .audio import Pcm, silence

EDGE_MS = 10
"""How much silence stays before the first audible sample of a reply, and after the last: the onset of a soft sound."""
AUDIBLE = 100
"""Int16 amplitude (-50 dBFS) from which a sample counts as audible. Noise and offsets below it are silence."""
CHARS_PER_S = 15.0
"""How fast speech goes until this voice's own rate is known; for clauses that are still being made."""

_UNSPACED = (
    "\u0e00-\u109f"  # Thai, Lao, Tibetan, Burmese
    "\u1780-\u17ff\u1950-\u19ff"  # Khmer, Tai Le, New Tai Lue
    "\u1a20-\u1aaf\u1b00-\u1b7f"  # Tai Tham, Balinese
    "\u3000-\u312f\u3190-\ua4cf"  # Japanese, Chinese, Yi
    "\ua980-\ua9ff\uaa60-\uaadf"  # Javanese, more of Burmese, Tai Viet
    "\uf900-\ufaff\uff00-\uff9f"  # compatibility, full and half width
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"  # more of Japanese and Chinese
)
"""Blocks of the scripts that put no spaces between words."""
_CUT_WORD = re.compile(rf"[^\s{_UNSPACED}]+$")
"""A word up to the end of the text, of a script that has spaces."""


class _Clause:
    """Words and how much of their sound was made and has left. ``quiet_samples`` is the silence at its end so far."""

    __slots__ = ("text", "pause_samples", "written_samples", "quiet_samples", "played_samples", "complete")

    def __init__(self, text: str, pause_samples: int) -> None:
        self.text = text
        self.pause_samples = pause_samples
        self.written_samples = 0
        self.quiet_samples = 0
        self.played_samples = 0
        self.complete = False

    @property
    def spoken_samples(self) -> int:
        """Up to its last word: the pause behind it has no words."""
        return max(1, self.written_samples - self.quiet_samples)


class SpeechQueue:
    """Sound at the playout's rate: ``begin``, ``append`` ... ``end`` for each clause, ``take`` at the other end."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._clauses: list[_Clause] = []
        self._pieces: deque[tuple[_Clause, Pcm]] = deque()
        self._lead: Pcm | None = None
        self._longest_lead_samples = 0
        self._owed_samples = 0
        self._run_samples = 0  # of sound, the last to have left without a gap,
        self._gap_samples = 0  # and of the silence before it

    # --- in

    def begin(self, text: str, longest_pause_ms: float) -> None:
        """Start a clause. Silence from its last sound to the first of the next lasts ``longest_pause_ms`` at most, or
        10 ms more where the onset needs them.
        """
        edge = self._samples(EDGE_MS)
        before = next((c for c in reversed(self._clauses) if c.written_samples), None)
        self._lead = silence(0)
        self._longest_lead_samples = max(edge, before.pause_samples - before.quiet_samples) if before else edge
        self._clauses.append(_Clause(text, self._samples(longest_pause_ms)))

    def append(self, pcm: Pcm) -> bool:
        """Add sound of the clause begun last; return whether any of it is there to be played."""
        owed, pcm = pcm[: self._owed_samples], pcm[self._owed_samples :]
        added = False
        if len(owed):
            self._owed_samples -= len(owed)
            added = self._add(next(c for c in reversed(self._clauses) if c.complete), owed)
        if len(pcm):
            added |= self._add(self._clauses[-1], self._without_lead(pcm))
        return added

    def _add(self, clause: _Clause, pcm: Pcm) -> bool:
        if not len(pcm):
            return False
        audible = _audible(pcm)
        clause.quiet_samples = len(pcm) - 1 - int(audible[-1]) if len(audible) else clause.quiet_samples + len(pcm)
        clause.written_samples += len(pcm)
        self._pieces.append((clause, pcm))
        return True

    def end(self, owed_samples: int = 0) -> None:
        """The clause is complete: its length is known, but for so many samples that are appended later."""
        clause = self._clauses[-1]
        clause.complete = True
        self._owed_samples = owed_samples
        self._shorten(clause, clause.pause_samples)

    def finish(self) -> None:
        """Nothing follows: the reply ends with its last sound, not with the pause behind it."""
        if self._clauses:
            self._shorten(self._clauses[-1], self._samples(EDGE_MS))

    def clear(self) -> None:
        """Drop what has not left."""
        self._pieces.clear()

    def _without_lead(self, pcm: Pcm) -> Pcm:
        """Keep silence back until the clause is heard, however it comes in pieces, and then only the last of it."""
        if self._lead is None:
            return pcm
        pcm = np.concatenate([self._lead, pcm])
        audible = _audible(pcm)
        begin = max(0, (int(audible[0]) if len(audible) else len(pcm)) - self._longest_lead_samples)
        self._lead = None if len(audible) else pcm[begin:]
        return pcm[begin:] if len(audible) else silence(0)

    def _shorten(self, clause: _Clause, quiet_samples: int) -> None:
        """Cut the clause's silence at its end down, as far as it has not left yet."""
        surplus = clause.quiet_samples - quiet_samples
        while surplus > 0 and self._pieces:
            _, pcm = self._pieces.pop()
            cut = min(surplus, len(pcm))
            surplus -= cut
            clause.quiet_samples -= cut
            clause.written_samples -= cut
            if cut < len(pcm):
                self._pieces.append((clause, pcm[:-cut]))

    def _samples(self, ms: float) -> int:
        return int(self._rate_hz * ms / 1000)

    # --- out

    def __len__(self) -> int:
        """Count the samples that wait, per clause: there are few of them, and hundreds of pieces."""
        return sum(c.written_samples - c.played_samples for c in self._clauses) if self._pieces else 0

    @property
    def started(self) -> bool:
        """Whether any sample has left."""
        return any(clause.played_samples for clause in self._clauses)

    def holds(self, samples: int) -> bool:
        """Whether so many samples wait, or the last ones of a clause."""
        return bool(self._pieces) and (self._pieces[0][0].complete or len(self) >= samples)

    def peek(self, samples: int) -> Pcm:
        """Return what ``take`` would, without taking it; silence where there is no more."""
        out, filled = silence(samples), 0
        for _, pcm in self._pieces:
            part = pcm[: samples - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            if filled == samples:
                break
        return out

    def take(self, out: Pcm) -> tuple[int, list[str]]:
        """Fill ``out``; return how much of it, and the texts of the clauses whose first sample is in it.

        A clause that is still being made begins in the next one if it cannot fill the rest: one gap instead of two.
        """
        begun: list[str] = []
        filled = 0
        while filled < len(out) and self.holds(len(out) - filled):
            clause, pcm = self._pieces.popleft()
            part = pcm[: len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            if not clause.played_samples:
                begun.append(clause.text)
            clause.played_samples += len(part)
            if len(part) < len(pcm):
                self._pieces.appendleft((clause, pcm[len(part) :]))
        self._run_samples += filled
        return filled, begun

    def fall_silent(self, samples: int) -> None:
        """So much silence leaves in its place; what was in flight meanwhile reaches the listener."""
        if self._run_samples:
            self._run_samples = self._gap_samples = 0
        self._gap_samples += samples

    # --- what was heard

    def heard(self, in_flight_samples: int) -> str:
        """Return the words that have reached the listener: whole clauses, and whole words of the one cut off.

        ``in_flight_samples`` is how much of what left last, silence and all, has not.
        """
        heard = [self._heard_of(clause, samples) for clause, samples in self._reached(in_flight_samples)]
        return " ".join(text for text in reversed(heard) if text)

    def heard_lately(self, samples: int, in_flight_samples: int) -> str:
        """Return what the listener heard, or is in the middle of hearing, in the last so many samples of sound: from
        the first word of that to the end of the clause that goes on. Empty if nothing has reached them yet.
        """
        left = samples
        heard: list[str] = []
        for clause, reached in self._reached(in_flight_samples):
            lately = min(left, reached)
            left -= lately
            if lately:
                heard.append(self._rest_of(clause, reached - lately))
        return " ".join(reversed(heard))

    def _reached(self, in_flight_samples: int) -> Iterator[tuple[_Clause, int]]:
        """Yield the clauses, the last one first, and how much of each has reached the listener."""
        left = self._sound_in(in_flight_samples)
        for clause in reversed(self._clauses):
            late = min(left, clause.played_samples)
            left -= late
            yield clause, clause.played_samples - late

    def _sound_in(self, in_flight_samples: int) -> int:
        """Return how much of what is in flight is sound."""
        run = min(in_flight_samples, self._run_samples)
        return run + max(0, in_flight_samples - run - self._gap_samples)

    def _heard_of(self, clause: _Clause, samples: int) -> str:
        total = self._total_samples(clause)
        if samples >= total:
            return clause.text
        chars = int(len(clause.text) * samples / total)
        return clause.text[:chars] if clause.text[chars : chars + 1].isspace() else _whole_words(clause.text[:chars])

    def _rest_of(self, clause: _Clause, samples: int) -> str:
        """Return its text from the word at this sample on; the pause behind it counts to its last word."""
        chars = min(int(len(clause.text) * samples / self._total_samples(clause)), len(clause.text) - 1)
        return clause.text[len(_whole_words(clause.text[:chars])) :].lstrip()

    def _total_samples(self, clause: _Clause) -> int:
        if clause.complete:
            return clause.spoken_samples
        return max(1, clause.written_samples, int(len(clause.text) / self._chars_per_s() * self._rate_hz))

    def _chars_per_s(self) -> float:
        done = [c for c in self._clauses if c.complete and c.written_samples]
        samples = sum(c.spoken_samples for c in done)
        return sum(len(c.text) for c in done) * self._rate_hz / samples if samples else CHARS_PER_S


def _audible(pcm: Pcm) -> NDArray[np.intp]:
    return np.flatnonzero(np.abs(pcm.astype(np.int32)) >= AUDIBLE)


def _whole_words(text: str) -> str:
    """Drop the word that was cut; scripts without spaces are cut between characters."""
    return _CUT_WORD.sub("", text).rstrip()
