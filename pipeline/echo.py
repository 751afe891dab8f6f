"""Whether what the microphone heard is the agent's own voice coming back.

No canceller: it decides, and changes no sample. An echo is what left, late, filtered and softer: it is like it at one
delay, that of the path, as much as the path lets it be, and as loud. Another voice is like it at no delay, or by chance
at another one each time; over an echo it makes the sound less like, and louder, than the path's usual. So a quiet
caller is heard where there is no echo, however loud the agent is, and a loud one over an echo at once.

Nothing reads a clock. Both sides are counted in samples, and "now" is what was pushed last; the path's delay is kept as
the distance of both axes, which does not depend on when what was pushed.
"""

from __future__ import annotations

import numpy as np

from .audio import SAMPLES_PER_MS, AudioFrame, AudioTail, Pcm, silence
from .likeness import HEARD_MS, SPAN_MS, Heard, Likeness

HEARD_SAMPLES = HEARD_MS * SAMPLES_PER_MS
"""How much of the microphone's sound is looked at."""
KEPT_MS = 4 * SPAN_MS
LONGEST_MS = KEPT_MS - HEARD_MS
"""The longest delay at which an echo is found."""
TOLERANCE_MS = 5
"""A path's delay is the same again within this."""

SURE, LIKELY, POSSIBLE = 0.3, 0.08, 0.04
"""Shares at which a path is found: at first sight; at second sight, at the same delay; where it is known to be."""
ALIKE, RELATED = 0.7, 0.45
"""Of the path's usual share: what is an echo however loud it is; and, of its cube, what is none however soft. The
cube, because a room that makes shares small also makes them vary."""
LOUDEST = 0.5
"""The most power of an echo over that of what left with which a path is found."""
LOUDER = 4.0
"""In between, what is louder than the path's usual by more than this factor in power is someone else."""
ADAPTING, SLOWLY = 0.1, 0.02
"""By which part of the way one window changes what is usual, if it is alike and if not."""


class Echo:
    """One session's: frames that leave go in, and for a window of speech it tells whose it is."""

    def __init__(self) -> None:
        self._returned_samples = 0
        self._sent = _Sent()
        self._path_ms: float | None = None
        self._candidate_ms: float | None = None
        self._usual_share = 0.0
        self._usual_gain = 0.0

    @property
    def returned_ms(self) -> int:
        """How much was told to be echo so far."""
        return self._returned_samples // SAMPLES_PER_MS

    def left(self, frame: AudioFrame) -> None:
        """A frame of the agent's leaves, silent ones included. Next to free."""
        self._sent.push(frame)

    def is_echo(self, heard: Pcm, end_samples: int, window_samples: int) -> bool:
        """Tell whether the end of what was heard, a window that sounds like speech, is echo and nothing else.

        ``heard`` are `HEARD_SAMPLES` up to index ``end_samples``. Free while the agent is silent; else 0.2 to 1 ms.
        """
        sound = Heard.of(heard) if self._sent.sounding else None
        if sound is None:
            return False
        echo = self._judge(sound, end_samples / SAMPLES_PER_MS - self._sent.end_ms)
        self._returned_samples += window_samples if echo else 0
        return echo

    def _judge(self, sound: Heard, now_ms: float) -> bool:
        """``now_ms`` is how far the microphone's axis is ahead of the other."""
        if self._path_ms is not None:
            soonest_ms = self._path_ms - now_ms - TOLERANCE_MS
            if 0 <= soonest_ms <= LONGEST_MS:
                like = sound.compare(self._sent.last(SPAN_MS, soonest_ms), SPAN_MS, 2 * TOLERANCE_MS)
                if like.share >= POSSIBLE:
                    return self._is_usual(like, now_ms + soonest_ms + like.delay_ms)
        return self._is_found(sound.compare(self._sent.last(KEPT_MS), KEPT_MS, LONGEST_MS), now_ms)

    def _is_usual(self, like: Likeness, path_ms: float) -> bool:
        alike = like.share >= ALIKE * self._usual_share
        self._usual_share += (ADAPTING if alike else SLOWLY) * (like.share - self._usual_share)
        if alike:
            self._path_ms = path_ms
            self._usual_gain += ADAPTING * (like.gain - self._usual_gain)
            return True
        return like.share >= RELATED * self._usual_share**3 and like.newest_gain <= LOUDER * self._usual_gain

    def _is_found(self, like: Likeness, now_ms: float) -> bool:
        """Look for a path where none is known, or is no more."""
        if like.share < max(LIKELY, RELATED * self._usual_share**3) or like.gain > LOUDEST:
            return False
        before_ms, self._candidate_ms = self._candidate_ms, now_ms + like.delay_ms
        again = before_ms is not None and abs(self._candidate_ms - before_ms) <= TOLERANCE_MS
        if not again and like.share < SURE:
            return False
        self._path_ms, self._usual_share, self._usual_gain = self._candidate_ms, like.share, like.gain
        return True


class _Sent:
    """What left lately, on its own axis and at its own rate."""

    def __init__(self) -> None:
        self._rate_hz = 0
        self._next_pts = 0
        self._tail = AudioTail(1)
        self._silent_samples = 0

    @property
    def sounding(self) -> bool:
        """Whether anything that is kept is not silent."""
        return self._silent_samples < self._samples(KEPT_MS)

    @property
    def end_ms(self) -> float:
        """Where the newest sample ends."""
        return self._tail.end_samples * 1000 / self._rate_hz

    def push(self, frame: AudioFrame) -> None:
        """Keep a frame, and as silence the frames that were skipped before it."""
        if frame.rate_hz != self._rate_hz:
            self._rate_hz, self._next_pts = frame.rate_hz, frame.pts
            self._tail = AudioTail(self._samples(KEPT_MS))
            self._push(silence(self._samples(KEPT_MS)), silent=True)
        if frame.pts > self._next_pts:
            self._push(silence(min(frame.pts - self._next_pts, self._samples(KEPT_MS))), silent=True)
        self._push(frame.pcm, silent=frame.silent)
        self._next_pts = frame.pts + len(frame.pcm)

    def last(self, span_ms: int, until_ms: float = 0.0) -> Pcm:
        """Return ``span_ms`` of it, up to what left ``until_ms`` ago; silence in place of what is not kept any more."""
        count = self._samples(span_ms)
        end = self._tail.end_samples - self._samples(until_ms)
        kept = self._tail.since(end - count)[: max(0, end - self._tail.begin_samples)][:count]
        return np.concatenate([silence(count - len(kept)), kept])

    def _push(self, pcm: Pcm, *, silent: bool) -> None:
        self._tail.push(pcm)
        self._silent_samples = self._silent_samples + len(pcm) if silent else 0

    def _samples(self, ms: float) -> int:
        return round(ms * self._rate_hz / 1000)
