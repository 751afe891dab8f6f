"""An event loop whose clock jumps: waiting costs nothing, and a deadlock raises instead of hanging."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits for something that nothing will bring."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, move the loop's clock there."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Deadlock(", ".join(t.get_name() for t in asyncio.all_tasks(self.loop)))
        if not ready and timeout:
            self.loop.now_s += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``time()`` is ``now_s``; who runs it may add to it to play a stalled loop."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self.now_s = 100.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in virtual time; tasks left over are an error."""
    results: list[T] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(_tidy(main, results))
    return results[0]


async def _tidy(main: Coroutine[Any, Any, T], results: list[T]) -> None:
    results.append(await main)
    await asyncio.sleep(0)
    left = [t.get_name() for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert not left, f"tasks left behind: {left}"
