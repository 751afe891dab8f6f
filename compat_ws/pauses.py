"""When a caller who sends nothing is silent, and for how long.

The session counts samples and reads no clock, so a client that mutes itself, or sends only what is spoken, has to be
heard as silence, or its turns would never end. But pieces of 256 ms are 256 ms apart, and nothing may be put between
them. TCP loses nothing and keeps the order, so what has not come was either not spoken or is late. The rule:

- A piece covers as much time from its arrival as it lasts: the next one is not due before that. Pieces that come
  together cover their sum, at most ``MAX_COVERED_S``, which is more than the longest piece that browsers cut.
- Nothing is missing until ``GRACE_S`` after the covered time. Then everything since the last piece came was silence:
  all of that is owed at once, so that a pause lasts as long as it did, and from then on every 20 ms.
- A hundredth of what is covered is forgiven: more than two clocks drift apart.
- Before the first sound nothing is owed, for no turn has begun.
- Where the event loop itself stood still, it reads its sockets before it believes in silence: once, and for 20 ms.

So however a stream is cut, nothing is put into it as long as no piece is later than ``GRACE_S``. A stall of the network
beyond that is a pause, and what arrives after it is not taken for late: shortening the next pause by the length of the
stall would only make the caller wait for the answer.

Sans-IO: time is an argument, in seconds, monotonic.
"""

from __future__ import annotations

GRACE_S = 0.200
TICK_S = 0.020
MAX_COVERED_S = 1.5
COVERED = 0.99
MAX_OWED_S = MAX_COVERED_S + 0.5
"""At once; a pause of which more is owed is one of this process, which was suspended."""


class Pauses:
    """Decide how much silence to add, and when."""

    def __init__(self) -> None:
        self.deadline_s: float | None = None
        """When ``owed_s`` is to be asked next, if nothing comes until then; None: never."""
        self._filled_s = 0.0
        self._covered_s = 0.0
        self._excused = False

    def heard(self, seconds: float, now_s: float) -> None:
        """Note that a piece of the caller's sound has come."""
        self._covered_s = min(max(self._covered_s, now_s) + seconds * COVERED, now_s + MAX_COVERED_S)
        self._filled_s = now_s
        self._excused = False
        self.deadline_s = self._covered_s + GRACE_S

    def owed_s(self, now_s: float) -> float:
        """Return how many seconds of silence to add now, and note them as added."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return 0.0
        if now_s - self.deadline_s > TICK_S and not self._excused:
            self._excused = True
            self.deadline_s = now_s + TICK_S
            return 0.0
        seconds = min(now_s - self._filled_s, MAX_OWED_S)
        self._filled_s = now_s
        self._excused = False
        self.deadline_s = now_s + TICK_S
        return seconds
