"""How late the event loop runs what is due: the first sign that this process has more calls than it can serve."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

INTERVAL_S = 0.1
REMEMBERED = 20
"""Two seconds: one slow moment shuts nobody out for long."""
SOUND = 5
"""Measures on time that a start counts for: what happens while a process starts is no overload."""


class LoopLag:
    """Measure on the running loop from ``start`` to ``stop``; ``observe(ms)`` is called for every measure."""

    def __init__(self, observe: Callable[[float], None] = lambda _: None) -> None:
        self._observe = observe
        self._recent_ms: deque[float] = deque([0.0] * SOUND, maxlen=REMEMBERED)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ms(self) -> float:
        """The median of the last two seconds: a single hiccup is no overload."""
        return sorted(self._recent_ms)[len(self._recent_ms) // 2]

    def start(self) -> None:
        """Begin to measure."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + INTERVAL_S
        self._timer = loop.call_at(due_s, self._measure, due_s)

    def stop(self) -> None:
        """Measure no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _measure(self, due_s: float) -> None:
        late_ms = max(0.0, asyncio.get_running_loop().time() - due_s) * 1000
        self._recent_ms.append(late_ms)
        self._observe(late_ms)
        self.start()
