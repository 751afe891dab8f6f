"""Requests of many calls, worked off in batches: one thread, which takes all that waits when it is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from pipeline.errors import EngineError
from pipeline.threads import EngineThreads

In = TypeVar("In")
Out = TypeVar("Out")

Work = Callable[[Sequence[In], Callable[[], bool]], Sequence[Out]]
"""Do a batch in the thread; the second argument tells whether anybody still wants it."""


class Batches(Generic[In, Out]):
    """A queue before one thread. Belongs to the loop that asks; what waits is bounded by who asks."""

    def __init__(self, name: str, work: Work[In, Out], most: int) -> None:
        self._threads = EngineThreads(name)
        self._work = work
        self._most = most
        self._closed = False
        self._waiting: list[tuple[In, asyncio.Future[Out]]] = []
        self._running: asyncio.Future[Sequence[Out]] | None = None

    def close(self) -> None:
        """Join the thread; blocks while it finishes its step. What is still asked fails with EngineError."""
        self._closed = True
        self._threads.close()

    def ask(self, item: In) -> asyncio.Future[Out]:
        """Queue ``item``. Cancel the future to withdraw it: what waits is left out, what runs ends after its step."""
        answer: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        self._go_on()
        return answer

    def _go_on(self) -> None:
        if self._busy():
            return
        self._waiting = [(item, answer) for item, answer in self._waiting if not answer.done()]
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        if batch:
            self._start([item for item, _ in batch], [answer for _, answer in batch])

    def _busy(self) -> bool:
        running = self._running
        # A loop that ended took its futures along; they are never done.
        return running is not None and not running.done() and running.get_loop() is asyncio.get_running_loop()

    def _start(self, items: list[In], answers: list[asyncio.Future[Out]]) -> None:
        def wanted() -> bool:
            return not self._closed and not all(answer.done() for answer in answers)

        try:
            self._running = asyncio.wrap_future(self._threads.submit(partial(self._work, items, wanted)))
        except EngineError as error:  # closed
            _fail(answers, error)
        else:
            self._running.add_done_callback(partial(self._finish, answers))

    def _finish(self, answers: list[asyncio.Future[Out]], done: asyncio.Future[Sequence[Out]]) -> None:
        if done.cancelled():
            _fail(answers, EngineError(f"{self._threads.name} was closed"))
        elif (error := done.exception()) is not None:
            _fail(answers, error)
        else:
            for answer, out in zip(answers, done.result(), strict=False):  # none of an unwanted batch
                if not answer.done():
                    answer.set_result(out)
        self._go_on()


def _fail(answers: list[asyncio.Future[Out]], error: BaseException) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
