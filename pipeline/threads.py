"""The only threads: engines that block run here, each on workers of its own.

An engine owns one ``EngineThreads`` and never shares it; nothing runs on the loop's default executor, where aiortc
encodes audio. Between a worker and the loop lie two bounded hand-overs:

    _Outlet   worker -> loop   a full one blocks the worker
    _Inlet    loop -> worker   a full one suspends the feeding task

Both have a stop flag that a worker meets between two items: closing the asynchronous iterator sets it and returns at
once, while the worker finishes the step it is in, whose result is thrown away.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from .errors import EngineError
from .tasks import cancel_and_wait

In = TypeVar("In")
Out = TypeVar("Out")

Emit = Callable[[Out], bool]
"""Hand one item to the loop; blocks while the loop is ``depth`` items behind. False: nobody listens, stop working."""


class _Stopped(BaseException):
    """Unwind a worker whose consumer has gone; a BaseException so that no engine's ``except Exception`` keeps it."""


class EngineThreads:
    """Up to ``workers`` threads, started when first needed and named after the engine.

    ``stalls`` counts how often one side of a hand-over had to wait for the other: the bounds were met.
    """

    def __init__(self, name: str, workers: int = 1) -> None:
        self.name = name
        self.stalls = 0
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._stops: set[Callable[[], None]] = set()

    def close(self) -> None:
        """Stop what runs, drop what waits, and join every thread. Blocks for at most one step of each worker."""
        for stop in tuple(self._stops):
            stop()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, work: Callable[[], Out]) -> Future[Out]:
        """Queue ``work`` for a free worker. Raises EngineError once closed."""
        try:
            return self._executor.submit(work)
        except RuntimeError as error:
            raise EngineError(f"{self.name} is closed") from error

    def owns(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` at ``close()`` until it is disowned."""
        self._stops.add(stop)

    def disowns(self, stop: Callable[[], None]) -> None:
        """Forget ``stop``."""
        self._stops.discard(stop)


def within(limit_s: float, work: Callable[[], Out]) -> Out:
    """Wait ``limit_s`` at most for a blocking call that nothing can end. Raises TimeoutError: it goes on, unheard."""
    done: Future[Out] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=f"within {limit_s:g} s", daemon=True).start()
    return done.result(limit_s)


async def run_in_thread(threads: EngineThreads, work: Callable[[], Out]) -> Out:
    """Run one blocking call. Canceling returns at once; a call that has begun finishes, and its result is dropped."""
    return await asyncio.wrap_future(threads.submit(work))


def iterate_in_thread(
    threads: EngineThreads, make_iterator: Callable[[], Iterator[Out]], *, depth: int
) -> AsyncGenerator[Out, None]:
    """Iterate a blocking iterator in a worker, at most ``depth`` items ahead; what it raises is raised here.

    Closing or canceling stops output at once and never waits for the worker.
    """
    return stream_in_thread(threads, lambda emit: _drain(make_iterator(), emit), depth=depth)


async def stream_in_thread(
    threads: EngineThreads, work: Callable[[Emit[Out]], None], *, depth: int
) -> AsyncGenerator[Out, None]:
    """Run ``work`` in a worker and yield what it emits: for libraries that call back instead of iterating."""
    outlet = _Outlet[Out](threads, depth)
    with outlet.running(partial(work, outlet.emit)):
        while await outlet.filled():
            yield outlet.pop()


async def feed_in_thread(
    threads: EngineThreads,
    items: AsyncIterator[In],
    work: Callable[[Iterator[In]], Iterator[Out]],
    *,
    feed_depth: int,
    depth: int = 16,
) -> AsyncGenerator[Out, None]:
    """Let ``work`` consume ``items`` in a worker while they come, and yield what it yields.

    The end of ``items`` ends the blocking iterator that ``work`` reads. A worker that falls ``feed_depth`` items
    behind suspends the reading of ``items``. What ``items`` or ``work`` raises is raised here. Closing unwinds
    ``work`` at its next read or yield; ``items`` stays the caller's to close.
    """
    inlet = _Inlet[In](threads, feed_depth)
    outlet = _Outlet[Out](threads, depth)
    with outlet.running(lambda: _drain(work(inlet.read()), outlet.emit), inlet.stop):
        feeding = asyncio.create_task(inlet.feed(items), name=f"feed {threads.name}")
        feeding.add_done_callback(outlet.feeding_ended)
        try:
            while await outlet.filled():
                yield outlet.pop()
        finally:
            inlet.stop()
            await cancel_and_wait(feeding)


def _drain(iterator: Iterator[Out], emit: Emit[Out]) -> None:
    """Emit until the end or until nobody listens; a generator is closed in its own thread."""
    try:
        for item in iterator:
            if not emit(item):
                return
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


class _Outlet(Generic[Out]):
    """Items on their way from one worker to the loop."""

    def __init__(self, threads: EngineThreads, depth: int) -> None:
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._items: deque[Out] = deque()
        self._room = threading.Semaphore(depth)
        self._ready = asyncio.Event()
        self._stopped = False
        self._ended = False
        self._error: BaseException | None = None

    # --- in the worker

    def emit(self, item: Out) -> bool:
        """Hand ``item`` over, waiting for room. False once stopped."""
        if not self._stopped and not self._room.acquire(blocking=False):
            self._threads.stalls += 1
            self._room.acquire()
        if self._stopped:
            return False
        self._items.append(item)
        return self._on_loop(self._ready.set)

    def _on_loop(self, call: Callable[[], object]) -> bool:
        """Schedule ``call`` on the loop. False where the loop is closed: then nobody listens any more."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)
            return True
        self._stopped = True
        return False

    # --- on the loop

    def running(self, work: Callable[[], None], *stops: Callable[[], None]) -> _Running:
        """Start ``work``; leaving the context stops it without waiting."""
        return _Running(self._threads, work, (self.stop, *stops), self._work_ended)

    def stop(self) -> None:
        """Take nothing more; wake the worker if it waits for room."""
        self._stopped = True
        self._room.release()

    async def filled(self) -> bool:
        """Wait for the next item. False at the end; raises what ended the work. Cancel-safe."""
        while not self._items and not self._ended:
            self._ready.clear()
            await self._ready.wait()
        if not self._items and self._error is not None:
            raise self._error
        return bool(self._items)

    def pop(self) -> Out:
        """Take the next item, which makes room for another."""
        self._room.release()
        return self._items.popleft()

    def feeding_ended(self, feeding: asyncio.Task[None]) -> None:
        """Fail with the input's error, if it failed."""
        if not feeding.cancelled() and (error := feeding.exception()) is not None:
            self._end(error)

    def _work_ended(self, job: Future[None]) -> None:
        """Note how the work ended; called in whichever thread ended it."""
        error = EngineError(f"{self._threads.name} was closed") if job.cancelled() else job.exception()
        if self._stopped or isinstance(error, _Stopped):
            error = EngineError(f"{self._threads.name} was closed")
        self._on_loop(partial(self._end, error))

    def _end(self, error: BaseException | None) -> None:
        # On the loop, after every `_ready.set` of the same worker: whatever it emitted is in `_items` by now.
        if not self._ended:
            self._ended, self._error = True, error
            self._ready.set()


class _Running:
    """A job and what stops it, as a context."""

    def __init__(
        self,
        threads: EngineThreads,
        work: Callable[[], None],
        stops: tuple[Callable[[], None], ...],
        ended: Callable[[Future[None]], None],
    ) -> None:
        self._threads = threads
        self._work = work
        self._stops = stops
        self._ended = ended
        self._job: Future[None] | None = None

    def __enter__(self) -> None:
        self._job = self._threads.submit(self._work)
        self._threads.owns(self._stop)
        self._job.add_done_callback(self._ended)

    def __exit__(self, *_: object) -> None:
        self._threads.disowns(self._stop)
        self._stop()
        if self._job is not None:
            self._job.cancel()

    def _stop(self) -> None:
        for stop in self._stops:
            stop()


class _Inlet(Generic[In]):
    """Items on their way from the loop to one worker."""

    def __init__(self, threads: EngineThreads, depth: int) -> None:
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._items: queue.SimpleQueue[In | _Inlet[In]] = queue.SimpleQueue()  # itself marks the end
        self._room = asyncio.Semaphore(depth)
        self._stopped = False

    async def feed(self, items: AsyncIterator[In]) -> None:
        """Pass ``items`` on, then their end."""
        async for item in items:
            if self._room.locked():
                self._threads.stalls += 1
            await self._room.acquire()
            self._items.put(item)
        self._items.put(self)

    def stop(self) -> None:
        """Wake the worker and let its next read unwind it."""
        self._stopped = True
        self._items.put(self)

    def read(self) -> Iterator[In]:
        """Block for each next item. Raises _Stopped once stopped."""
        while True:
            item = self._items.get()
            if self._stopped:
                raise _Stopped
            if isinstance(item, _Inlet):
                return
            yield item
            with suppress(RuntimeError):  # the loop is closed: the next read tells
                self._loop.call_soon_threadsafe(self._room.release)
