"""The outbound timeline: frame n is due at ``origin + n * ptime``, in integers, whatever happened before.

Time is an argument, so the arithmetic needs no event loop. Three rules make it a conversation's clock:

- Speech may leave up to ``lead_ms`` early, silence never.
- A talkspurt that begins while the clock waits for its next silent frame leaves at once, and all of it keeps that
  advance (less than one ptime). The timeline itself never moves for it: a thousand talkspurts add up to no drift.
- Late by more than ``MAX_LATE_FRAMES``: the timeline moves on. An absolute schedule without this rule answers a stall
  of 300 ms with 15 packets back to back.
"""

from __future__ import annotations

MAX_LATE_FRAMES = 3


class FrameClock:
    """Decide when the next frame leaves and which sample it starts with."""

    def __init__(self, ptime_ms: int, frame_samples: int, lead_ms: int = 0) -> None:
        self._ptime_s = ptime_ms / 1000
        self._frame_samples = frame_samples
        self._lead_s = lead_ms / 1000
        self._origin_s: float | None = None
        self._next = 0
        self._advance_s: float | None = None
        self.skipped_frames = 0
        self.late_frames = 0

    def wait_s(self, now_s: float, *, speech: bool) -> float:
        """Return the seconds until the next frame leaves (0 or less: now), if nothing changes meanwhile."""
        early_s = self._early_s(now_s) if speech else 0.0
        return self._due_s(now_s) - early_s - now_s

    def tick(self, now_s: float, *, speech: bool) -> int:
        """Let the next frame leave now; return the index of its first sample."""
        self._skip_if_late(now_s)
        self._advance_s = self._early_s(now_s) if speech else None
        pts = self._next * self._frame_samples
        self._next += 1
        return pts

    def _due_s(self, now_s: float) -> float:
        if self._origin_s is None:
            self._origin_s = now_s
        return self._origin_s + self._next * self._ptime_s

    def _early_s(self, now_s: float) -> float:
        """How far ahead of the timeline this talkspurt runs; decided by its first frame."""
        if self._advance_s is None:
            return max(self._lead_s, min(self._ptime_s, max(0.0, self._due_s(now_s) - now_s)))
        return self._advance_s

    def _skip_if_late(self, now_s: float) -> None:
        late_s = now_s - self._due_s(now_s)
        if late_s > self._ptime_s:
            self.late_frames += 1
        if late_s > MAX_LATE_FRAMES * self._ptime_s:
            frames = round(late_s / self._ptime_s)
            self._next += frames
            self.skipped_frames += frames
