"""So much at once, so much a second: a bucket of anything that is counted. Sans-IO: time is an argument, in seconds."""

from __future__ import annotations


class Allowance:
    """``burst`` is what may be taken at once, ``per_s`` how fast it comes back."""

    __slots__ = ("_burst", "_filled_s", "_left", "_per_s")

    def __init__(self, burst: float, per_s: float, now_s: float) -> None:
        self._burst = self._left = burst
        self._per_s = per_s
        self._filled_s = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Take ``amount``; False, and nothing is taken, where that much is not there."""
        self._left = min(self._burst, self._left + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True
