"""What engines are asked, and how long they take: through the contract alone, for any number of calls at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm, silence
from pipeline.engines import aclose, load
from pipeline.events import Message
from pipeline.resample import Resampler
from pipeline.tasks import closing

FRAME_SAMPLES = SPEECH_RATE_HZ // 50
TEXT = "Could you please tell me what the weather will be like tomorrow, and whether I need an umbrella? "
RESAMPLED = 2000
LEAST_ROUNDS = 5
"""Fewer say nothing of where the median lies."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call got. ``amount`` is in the unit of its `Case`.

    ``stutter_ms`` is how long playing would have had to wait for sound after the first; 0 if all came in time.
    """

    first_ms: float
    amount: float
    stutter_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Round:
    """What all calls of a round got, and how long it took until the last one had it."""

    answers: Sequence[Answer]
    took_s: float


Ask = Callable[[int], Awaitable[Answer]]
"""Ask the ``n``-th question."""


@dataclass(frozen=True, slots=True)
class Case:
    """An engine asked in one way (``how``) by ``calls`` at once, who begin within ``spread_s``, evenly.

    ``unit`` is what its throughput is counted in; empty where questions come no faster than they are spoken.
    """

    how: str
    calls: int
    ask: Ask
    unit: str = ""
    spread_s: float = 0.0
    rounds: list[Round] = field(default_factory=list)

    async def round(self, numbers: Iterator[int]) -> Round:
        """Ask once for each call, each time another question."""

        async def call(i: int) -> Answer:
            await asyncio.sleep(self.spread_s * i / self.calls)
            return await self.ask(next(numbers))

        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(call(i)) for i in range(self.calls)]
        return Round([one.result() for one in calls], time.perf_counter() - began_s)

    def first_ms(self) -> tuple[float, float]:
        """Return median and 95th percentile of the time to the first output."""
        middle, high = np.percentile([answer.first_ms for one in self.rounds for answer in one.answers], [50, 95])
        return float(middle), float(high)

    def interval_ms(self) -> tuple[float, float] | None:
        """Return where the median lies in 95 % of runs drawn from this one; rounds are drawn whole."""
        if len(self.rounds) < LEAST_ROUNDS:
            return None
        first = np.array([[answer.first_ms for answer in one.answers] for one in self.rounds])
        drawn = np.random.default_rng(1).integers(len(first), size=(RESAMPLED, len(first)))
        low, high = np.percentile(np.median(first[drawn].reshape(RESAMPLED, -1), axis=1), [2.5, 97.5])
        return float(low), float(high)

    def throughput(self) -> float:
        """Return how much of ``unit`` a second gave, all calls together."""
        return sum(answer.amount for one in self.rounds for answer in one.answers) / sum(
            one.took_s for one in self.rounds
        )

    def stutter_ms(self) -> float:
        """Return the 95th percentile."""
        stutters = [answer.stutter_ms for one in self.rounds for answer in one.answers]
        return float(np.percentile(stutters, 95))


async def measure(cases: Sequence[Case], rounds: int, settle_s: float = 0.0) -> None:
    """Ask all of them, in turns, with a pause in which what was closed ends; the first round counts nothing."""
    numbers = itertools.count()  # no question twice: an engine may remember what it was asked
    for number in range(rounds + 1):
        for case in cases:
            await asyncio.sleep(settle_s)
            taken = await case.round(numbers)
            if number:
                case.rounds.append(taken)


async def hear(stt: Any, pcm: Pcm, *, in_real_time: bool) -> Answer:
    """Say ``pcm``, frame by frame when each is over or all at once; the amount is its length in seconds."""
    ended_s = 0.0

    async def spoken() -> AsyncIterator[AudioFrame]:
        nonlocal ended_s
        began_s = time.perf_counter()
        for begin in range(0, len(pcm), FRAME_SAMPLES):
            frame = AudioFrame(pcm[begin : begin + FRAME_SAMPLES], SPEECH_RATE_HZ, begin)
            if in_real_time:
                over_s = began_s + begin / SPEECH_RATE_HZ + frame.duration_s
                await asyncio.sleep(max(0.0, over_s - time.perf_counter()))
            yield frame
        ended_s = time.perf_counter()

    final_s = 0.0
    async with closing(stt.transcribe(spoken(), "en")) as transcripts:
        async for _ in transcripts:
            final_s = time.perf_counter()
    return Answer((final_s - ended_s) * 1000, len(pcm) / SPEECH_RATE_HZ)


async def answer(llm: Any, messages: Sequence[Message]) -> Answer:
    """Ask for an answer, to its end; the amount is its deltas."""
    began_s, first_s, deltas = time.perf_counter(), 0.0, 0
    async with closing(llm.complete(messages)) as words:
        async for _ in words:
            first_s = first_s or time.perf_counter()
            deltas += 1
    return Answer((first_s - began_s) * 1000, deltas)


async def speak(tts: Any, text: str, most_s: float) -> Answer:
    """Have a text spoken, or ``most_s`` of it; the amount is its sound in seconds."""
    began_s, first_s, sound_s, late_s = time.perf_counter(), 0.0, 0.0, 0.0
    async with closing(tts.synthesize(text, None, "en", 1.0)) as pieces:
        async for piece in pieces:
            now_s = time.perf_counter()
            first_s = first_s or now_s
            late_s = max(late_s, now_s - first_s - sound_s)
            sound_s += len(piece) / tts.rate_hz
            if sound_s >= most_s:
                break
    return Answer((first_s - began_s) * 1000, sound_s, late_s * 1000)


def utterance(seconds: float) -> Pcm:
    """Return that much speech at 16 kHz, said by espeak-ng. Blocks for milliseconds."""
    tts = load("tts", "espeak", {})
    said = asyncio.run(_said(tts, TEXT * (1 + int(seconds) // 4)))
    resampler = Resampler(tts.rate_hz, SPEECH_RATE_HZ)
    samples = int(seconds * SPEECH_RATE_HZ)
    return np.concatenate([resampler.push(said), resampler.flush(), silence(samples)])[:samples]


async def _said(tts: Any, text: str) -> Pcm:
    try:
        async with closing(tts.synthesize(text, None, "en", 1.0)) as pieces:
            return np.concatenate([piece async for piece in pieces])
    finally:
        await aclose(tts)
