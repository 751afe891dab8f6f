"""How a session answers the turns that a caller speaks (`benchmarks.spoken`): exactly, in virtual time.

Real turn taking, end-of-turn engine and playout, and what a real detector heard; a recognizer that knows what was said
by then, and a model and a voice that take the times of a fast one each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from pipeline.agents import Agent
from pipeline.audio import SPEECH_RATE_HZ, AudioFormat, Pcm
from pipeline.engines import EndOfTurn, Engines
from pipeline.events import Event, Message, ReplyAudioStarted, ReplyStarted, TurnEnded, TurnMeasured
from pipeline.playout import Playout
from pipeline.session import Session
from pipeline.session_settings import SessionSettings

from . import turn_set, virtual_time
from .spoken import Recognizer, Replayed, Speech, Turn

STT_S, TTFT_S, TTFB_S = 0.04, 0.12, 0.09
ANSWER_MS = 600
FRAME_SAMPLES = SPEECH_RATE_HZ // 50
PREROLL_S = 0.3
FORMAT = AudioFormat(24_000)


@dataclass
class Model:
    """Answers two words, and notes when it was asked."""

    asked_s: list[float] = field(default_factory=list)

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Take ``TTFT_S``."""
        self.asked_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(TTFT_S)
        yield "All right."


@dataclass
class Voice:
    """Loud for ``ANSWER_MS``, and notes when it was asked."""

    rate_hz: int = FORMAT.rate_hz
    asked_s: list[float] = field(default_factory=list)

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Take ``TTFB_S``."""
        self.asked_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(TTFB_S)
        yield np.full(self.rate_hz * ANSWER_MS // 1000, 8_000, np.int16)


@dataclass(frozen=True, slots=True)
class Row:
    """How sessions decide that a turn is over."""

    name: str
    settings: SessionSettings
    turn: EndOfTurn | None = None
    write: Callable[[str], str] = turn_set.plain


@dataclass(frozen=True, slots=True)
class Taken:
    """One turn: how often each was asked, how often it was answered, and when it ended and an answer came, in ms."""

    model: int
    voice: int
    pauses: int
    released: int
    cut_off: bool
    complete: bool
    """What was answered last are all words that were said, or the turn was cut off."""
    endpoint_ms: float | None
    response_ms: float | None
    told_ms: float | None
    """The same as the server measures it: from the last sample that its detector took for speech."""


def taken(row: Row, speech: Speech, detector: Replayed) -> list[Taken]:
    """Let the caller say it all in one session, in virtual time."""
    return virtual_time.run(_converse(row, speech, detector))


async def _converse(row: Row, speech: Speech, detector: Replayed) -> list[Taken]:
    loop, playout, events = asyncio.get_running_loop(), Playout(FORMAT), list[tuple[float, Event]]()
    words = [word for turn in speech.turns for word in turn.words]
    stt, model, voice = Recognizer(words, STT_S, row.write), Model(), Voice()
    start_s = loop.time()

    async def listen() -> None:
        while True:
            await playout.next_frame()

    async with Session(Agent("a", "A"), Engines(detector, stt, model, voice, row.turn), playout, row.settings) as call:
        call.subscribe(lambda event: events.append((loop.time(), event)))
        ear = asyncio.create_task(listen())
        for begin in range(0, len(speech.pcm), FRAME_SAMPLES):
            frame = speech.pcm[begin : begin + FRAME_SAMPLES]
            await asyncio.sleep(start_s + (begin + len(frame)) / SPEECH_RATE_HZ - loop.time())
            call.push_audio(frame)
        ear.cancel()
        await asyncio.gather(ear, return_exceptions=True)
    asked = (model.asked_s, voice.asked_s, stt.pauses_s)
    begins_s = [start_s + turn.begin_samples / SPEECH_RATE_HZ - PREROLL_S for turn in speech.turns]
    return [
        _taken(
            turn,
            start_s,
            row,
            tuple(sum(begin_s <= at_s < end_s for at_s in times) for times in asked),
            [(at_s, event) for at_s, event in events if begin_s <= at_s < end_s],
        )
        for turn, (begin_s, end_s) in zip(speech.turns, pairwise([*begins_s, float("inf")]), strict=True)
    ]


def _taken(
    turn: Turn, start_s: float, row: Row, asked: tuple[int, ...], events: Sequence[tuple[float, Event]]
) -> Taken:
    end_s = start_s + turn.end_samples / SPEECH_RATE_HZ

    def after_ms(kind: type[Event]) -> float | None:
        times = [at_s for at_s, event in events if isinstance(event, kind) and at_s >= end_s]
        return (times[0] - end_s) * 1000 if times else None

    released = [at_s for at_s, event in events if isinstance(event, ReplyStarted)]
    said = [event.text for _, event in events if isinstance(event, TurnEnded)]
    cut_off = any(at_s < end_s for at_s in released)
    complete = cut_off or said == [row.write(turn.text)]
    told_ms = [event.first_audio_ms for _, event in events if isinstance(event, TurnMeasured)]
    model, voice, pauses = asked
    return Taken(
        model,
        voice,
        pauses,
        len(released),
        cut_off,
        complete,
        after_ms(TurnEnded),
        after_ms(ReplyAudioStarted),
        told_ms[-1] if told_ms else None,
    )
