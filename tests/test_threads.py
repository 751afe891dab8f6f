"""Blocking work beside the loop: order, bounds, errors, and that it stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from pipeline.errors import EngineError
from pipeline.threads import EngineThreads, feed_in_thread, iterate_in_thread, run_in_thread, stream_in_thread

LIMIT_S = 20.0


def run(main: Callable[[EngineThreads], Coroutine[Any, Any, None]], workers: int = 1) -> None:
    """Run with threads of its own; nothing may be left, neither thread nor task nor default executor."""
    threads = EngineThreads("engine", workers)

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(threads)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None

    try:
        asyncio.run(limited())
    finally:
        threads.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("engine")]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread brings about."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.001)


async def endless(sent: list[int]) -> AsyncIterator[int]:
    while True:
        sent.append(len(sent))
        yield sent[-1]


async def some(*items: int) -> AsyncIterator[int]:
    for item in items:
        yield item


def test_items_come_in_order_from_a_thread_of_that_name() -> None:
    names: set[str] = set()

    def numbers() -> Iterator[int]:
        for n in range(1000):
            names.add(threading.current_thread().name)
            yield n

    async def main(threads: EngineThreads) -> None:
        assert [n async for n in iterate_in_thread(threads, numbers, depth=3)] == list(range(1000))
        assert names == {"engine_0"}

    run(main)


def test_an_exception_crosses_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    async def main(threads: EngineThreads) -> None:
        iterator = iterate_in_thread(threads, broken, depth=1)
        assert [await anext(iterator), await anext(iterator)] == [1, 2]
        with pytest.raises(ValueError, match="broken"):
            await anext(iterator)
        with pytest.raises(ZeroDivisionError):
            await anext(iterate_in_thread(threads, lambda: iter([1 // 0]), depth=1))

    run(main)


def test_a_worker_gets_no_further_ahead_than_its_depth() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(100):
            made.append(n)
            yield n

    async def main(threads: EngineThreads) -> None:
        async with aclosing(iterate_in_thread(threads, numbers, depth=3)) as iterator:
            assert await anext(iterator) == 0
            await until(lambda: threads.stalls > 0)
            await asyncio.sleep(0.02)
            assert len(made) <= 1 + 3 + 1  # taken, handed over, in its hands
            assert [n async for n in iterator] == list(range(1, 100))

    run(main)


def test_closing_stops_the_worker_at_its_next_item_and_closes_the_iterator_there() -> None:
    made: list[int] = []
    closed_in: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            while True:
                made.append(len(made))
                yield made[-1]
        finally:
            closed_in.append(threading.current_thread().name)

    async def main(threads: EngineThreads) -> None:
        async with aclosing(iterate_in_thread(threads, numbers, depth=2)) as iterator:
            await anext(iterator)
        await until(lambda: bool(closed_in))
        assert closed_in == ["engine_0"]
        assert len(made) <= 5

    run(main)


def test_canceling_never_waits_for_the_step_a_worker_is_in() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        entered.set()
        leave.wait(LIMIT_S)
        yield 1

    async def main(threads: EngineThreads) -> None:
        iterator = iterate_in_thread(threads, stuck, depth=1)
        waiting = asyncio.ensure_future(anext(iterator))
        await until(entered.is_set)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not leave.is_set()
        leave.set()
        assert await run_in_thread(threads, lambda: "free again") == "free again"

    run(main)


def test_what_is_closed_before_a_worker_is_free_never_starts() -> None:
    leave = threading.Event()
    started: list[str] = []

    def late() -> Iterator[int]:
        started.append("late")
        yield 1

    async def main(threads: EngineThreads) -> None:
        blocker = asyncio.ensure_future(run_in_thread(threads, lambda: leave.wait(LIMIT_S)))
        waiting = asyncio.ensure_future(anext(iterate_in_thread(threads, late, depth=1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        leave.set()
        assert await blocker
        await run_in_thread(threads, lambda: None)
        assert started == []

    run(main)


def test_a_library_that_calls_back_is_told_to_stop() -> None:
    answers: list[bool] = []

    def work(emit: Callable[[int], bool]) -> None:
        while not answers or answers[-1]:
            answers.append(emit(len(answers)))
        answers.append(emit(-1))

    async def main(threads: EngineThreads) -> None:
        async with aclosing(stream_in_thread(threads, work, depth=2)) as stream:
            assert [await anext(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
        await until(lambda: len(answers) >= 2 and answers[-2:] == [False, False])

    run(main)


def test_one_call_returns_raises_and_can_be_canceled() -> None:
    leave = threading.Event()

    async def main(threads: EngineThreads) -> None:
        assert await run_in_thread(threads, lambda: threading.current_thread().name) == "engine_0"
        with pytest.raises(ZeroDivisionError):
            await run_in_thread(threads, lambda: 1 // 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_in_thread(threads, lambda: leave.wait(LIMIT_S)), 0.01)
        leave.set()

    run(main)


def test_closing_the_threads_ends_who_waits_and_refuses_who_comes() -> None:
    async def silent() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    async def main(threads: EngineThreads) -> None:
        iterators = [feed_in_thread(threads, silent(), iter, feed_depth=1) for _ in range(2)]  # one works, one waits
        waiting = [asyncio.ensure_future(anext(iterator)) for iterator in iterators]
        await asyncio.sleep(0.02)
        threads.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [EngineError, EngineError]
        with pytest.raises(EngineError, match="closed"):
            await run_in_thread(threads, lambda: None)

    run(main)


def test_close_frees_a_worker_that_waits_for_room() -> None:
    async def main(threads: EngineThreads) -> None:
        iterator = iterate_in_thread(threads, lambda: iter(range(100)), depth=1)
        await anext(iterator)
        await until(lambda: threads.stalls > 0)
        threads.close()
        await iterator.aclose()

    run(main)


def test_work_answers_while_it_is_being_fed() -> None:
    async def main(threads: EngineThreads) -> None:
        heard: asyncio.Queue[int | None] = asyncio.Queue()

        async def items() -> AsyncIterator[int]:
            while (item := await heard.get()) is not None:
                yield item

        def sums(numbers: Iterator[int]) -> Iterator[int]:
            total = 0
            for n in numbers:
                total += n
                yield total
            yield -total

        async with aclosing(feed_in_thread(threads, items(), sums, feed_depth=4)) as answers:
            for n, total in ((1, 1), (2, 3), (3, 6)):
                heard.put_nowait(n)
                assert await anext(answers) == total
            heard.put_nowait(None)
            assert [a async for a in answers] == [-6]

    run(main)


def test_a_worker_that_falls_behind_suspends_its_feeder() -> None:
    leave = threading.Event()
    sent: list[int] = []

    def slow(numbers: Iterator[int]) -> Iterator[int]:
        leave.wait(LIMIT_S)
        yield from numbers

    async def main(threads: EngineThreads) -> None:
        async with aclosing(feed_in_thread(threads, endless(sent), slow, feed_depth=8)) as answers:
            first = asyncio.ensure_future(anext(answers))
            await until(lambda: threads.stalls > 0)
            await asyncio.sleep(0.02)
            assert len(sent) == 8 + 1
            leave.set()
            assert await first == 0
            assert [await anext(answers) for _ in range(100)] == list(range(1, 101))

    run(main)


def test_closing_unwinds_work_that_waits_for_input() -> None:
    unwound: list[str] = []

    async def then_nothing() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    def work(numbers: Iterator[int]) -> Iterator[int]:
        try:
            yield from numbers
            unwound.append("as if the input had ended")
        except Exception:
            unwound.append("caught as an ordinary error")
        finally:
            unwound.append("finally")

    async def main(threads: EngineThreads) -> None:
        async with aclosing(feed_in_thread(threads, then_nothing(), work, feed_depth=4)) as answers:
            assert await anext(answers) == 1
        await until(lambda: bool(unwound))
        assert unwound == ["finally"]

    run(main)


def test_errors_of_input_and_of_work_are_raised_here() -> None:
    async def broken_input() -> AsyncIterator[int]:
        yield 1
        raise LookupError("input")

    def broken_work(numbers: Iterator[int]) -> Iterator[int]:
        yield next(numbers)
        raise ValueError("work")

    async def main(threads: EngineThreads) -> None:
        with pytest.raises(LookupError, match="input"):
            _ = [n async for n in feed_in_thread(threads, broken_input(), iter, feed_depth=4)]
        with pytest.raises(ValueError, match="work"):
            _ = [n async for n in feed_in_thread(threads, some(1, 2, 3), broken_work, feed_depth=4)]

    run(main)


def test_work_may_end_before_its_input_does() -> None:
    def first_two(numbers: Iterator[int]) -> Iterator[int]:
        yield next(numbers) + next(numbers)

    async def main(threads: EngineThreads) -> None:
        sent: list[int] = []
        assert [n async for n in feed_in_thread(threads, endless(sent), first_two, feed_depth=4)] == [1]

    run(main)


def test_workers_of_one_engine_work_side_by_side() -> None:
    both = threading.Barrier(2)

    async def main(threads: EngineThreads) -> None:
        calls = (run_in_thread(threads, lambda: both.wait(LIMIT_S)) for _ in range(2))
        assert sorted(await asyncio.gather(*calls)) == [0, 1]

    run(main, workers=2)
