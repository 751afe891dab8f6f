"""Callers who go on, pause, barge in and murmur at any moment, and a look at every sample that leaves.

Each answer is a square wave with a period of its own, which no gain or fade changes: so each frame tells whose it is.
None may be of an answer that was revoked or interrupted, or not released yet; but for the 5 ms in which an interrupted
one fades out. All in virtual time, everything random comes from the session's seed.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np

from pipeline.agents import Agent
from pipeline.audio import SAMPLES_PER_MS, AudioFormat, AudioFrame, Pcm, silence
from pipeline.engines import Engines
from pipeline.events import (
    EngineFailed,
    Event,
    Message,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    Transcript,
    TurnEnded,
)
from pipeline.playout import Playout
from pipeline.reply import Patience
from pipeline.session import Session
from pipeline.session_settings import SessionSettings
from pipeline.speech import SpeechSettings
from pipeline.turn_settings import TurnSettings
from pipeline.vad.energy import EnergyVad

from . import virtual_time

FORMAT = AudioFormat(24_000)
FRAME_MS = 20
TURNS = 15
"""About so many a session."""
WORDS, MURMUR, COUGH = 8_000, 6_000, 4_000
"""How loud each is: that is what the recognizer goes by."""
WORD_MS, MURMUR_MS = 200, 120
LEVEL = 8_000
SHORTEST, PERIODS = 4, 60
"""Half a period, in samples."""
AUDIBLE = 20
FADE_SAMPLES = 120


class Stale(AssertionError):
    """A frame left that nobody may speak."""


@dataclass
class Watch:
    """Knows whose turn it is to be heard, by the events, and looks at each frame."""

    counts: Counter[str] = field(default_factory=Counter)
    answers: dict[int, int] = field(default_factory=dict)
    """Which of the model's answers a reply is."""
    live: int | None = None
    leaving: int | None = None
    """The reply that has just ended: its last frame is yet to come, whole or as a fade."""
    fading: bool = False

    def tell(self, event: Event) -> None:
        """Follow who may speak."""
        self.counts[type(event).__name__] += 1
        match event:
            case ReplyStarted(reply):
                self.live = reply
            case ReplyText(reply, text) if text:
                self.answers[reply] = _answer(text)
            case ReplyFinished(reply) | ReplyInterrupted(reply) | EngineFailed(_, _, int(reply)):
                self.live, self.leaving, self.fading = None, reply, not isinstance(event, ReplyFinished)

    def look(self, frame: AudioFrame) -> None:
        """Raise Stale if a sample of it is of a reply that may not be heard."""
        leaving, fading = self.leaving, self.fading
        self.leaving, self.fading = None, False
        if frame.silent:
            return
        self.counts["audible frames"] += 1
        may_speak = self.live if self.live is not None or fading else leaving
        pcm = frame.pcm[FADE_SAMPLES:] if fading else frame.pcm
        heard = periods(pcm)
        allowed = {_period(self.answers[may_speak])} if may_speak in self.answers else set()
        if heard - allowed or (may_speak is None and np.abs(pcm).max(initial=0) > AUDIBLE):
            raise Stale(f"heard {sorted(heard)} where {sorted(allowed)} may be, at {frame.pts}")
        self.counts["fades"] += fading


def periods(pcm: Pcm) -> set[int]:
    """Return the half periods of the square waves in it; those that an edge or a silence cuts are not counted."""
    signs = np.where(np.abs(pcm.astype(np.int32)) > AUDIBLE, np.sign(pcm), 0)
    edges = np.flatnonzero(np.diff(signs)) + 1
    inner = [(a, b) for a, b in pairwise(edges) if signs[a] and signs[a - 1] and signs[b]]
    return {int(b - a) for a, b in inner}


def _period(answer: int) -> int:
    return SHORTEST + answer % PERIODS


def _answer(text: str) -> int:
    found = re.search(r"\d+", text)
    assert found is not None, text
    return int(found[0])


@dataclass
class Slow:
    """Takes its time, now and then all of it."""

    dice: random.Random

    async def __call__(self, up_to_s: float) -> None:
        """Take none, some or (rarely) no end."""
        if self.dice.random() < 0.002:
            await asyncio.Event().wait()
        await asyncio.sleep(self.dice.choice((0.0, self.dice.random() * up_to_s)))


@dataclass
class Recognizer:
    """Hears a word every 200 ms of speech, and murmurs; answers pauses well, late, twice, wrongly or not at all."""

    dice: random.Random
    slow: Slow
    hears_pauses: bool = True

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Yield words at pauses, in between, and at the end."""
        loud, older = Counter[int](), None
        async for frame in frames:
            loud[int(np.abs(frame.pcm).max(initial=0))] += len(frame.pcm)
            said = _said(loud)
            if len(frame.pcm):
                if self.dice.random() < 0.05:
                    yield Transcript(said, False, language)
                continue
            await self.slow(0.15)
            answer = Transcript(
                said if self.dice.random() < 0.9 else f"{said} or so".strip(), False, language, frame.pts
            )
            for one in self.dice.choices(((answer,), (answer, answer), (), (older, answer)), (85, 5, 5, 5))[0]:
                if one is not None:
                    yield one
            older = answer
        await self.slow(0.15)
        yield Transcript(_said(loud), True, language)


def _said(loud: Counter[int]) -> str:
    words = [f"word{i}" for i in range(loud[WORDS] // (WORD_MS * SAMPLES_PER_MS))]
    return " ".join(["yeah"] * (loud[MURMUR] >= MURMUR_MS * SAMPLES_PER_MS) + words)


@dataclass
class Model:
    """Says its answer's number in every clause."""

    dice: random.Random
    slow: Slow
    answers: int = 0

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Yield one to three clauses, and stumble."""
        self.answers += 1
        answer = self.answers
        await self.slow(0.4)
        for _ in range(self.dice.randint(1, 3)):
            yield f"Answer {answer} " + "goes on " * self.dice.randint(0, 4)
            await self.slow(0.1)
            yield f"for {answer}. "


@dataclass
class Voice:
    """Hums each answer at its own pitch."""

    dice: random.Random
    slow: Slow
    rate_hz: int = FORMAT.rate_hz

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield pieces, as fast as it is heard or faster."""
        await self.slow(0.2)
        half = _period(_answer(clause))
        wave = np.repeat(np.array([LEVEL, -LEVEL], np.int16), half)
        for _ in range(len(clause.split())):
            piece = np.tile(wave, self.dice.choice((600, 2_400, 4_800)) // len(wave))
            yield piece
            await self.slow(len(piece) / self.rate_hz)


@dataclass
class Judge:
    """Has an opinion on everything."""

    dice: random.Random
    slow: Slow

    async def is_complete(self, audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        """Return any."""
        await self.slow(0.1)
        return self.dice.random()


def script(dice: random.Random) -> list[int]:
    """Return how loud the caller is in each frame: turns with pauses, and what they do until the next one."""
    frames: list[int] = []

    def sound(level: int, least_ms: int, most_ms: int) -> None:
        frames.extend([level] * (dice.randint(least_ms, most_ms) // FRAME_MS))

    for _ in range(TURNS):
        sound(WORDS, 200, 1200)
        for _ in range(dice.choice((0, 0, 1, 2))):
            sound(0, 20, 700)
            sound(WORDS, 40, 800)
        for _ in range(dice.choice((0, 0, 1, 2, 3))):
            sound(0, 100, 1500)
            sound(*dice.choice(((MURMUR, 140, 400), (COUGH, 20, 300), (WORDS, 40, 300))))
        sound(0, 20, 2500)
    sound(0, 3000, 3000)
    return frames


def settings(dice: random.Random) -> SessionSettings:
    """Return those of one session."""
    silence_ms = dice.choice((200, 300, 400))
    return SessionSettings(
        SpeechSettings(pause_ms=silence_ms // 2),
        TurnSettings(endpoint_ms=silence_ms, allow_interruptions=dice.random() < 0.9),
        Patience(1.0, 1.0, 1.0),
    )


def converse(seed: int) -> Counter[str]:
    """Run one session; return how often what happened. Raises Stale."""
    return virtual_time.run(_converse(random.Random(seed)))


async def _converse(dice: random.Random) -> Counter[str]:
    loop, watch, playout = asyncio.get_running_loop(), Watch(), Playout(FORMAT)
    slow = Slow(dice)
    judge = Judge(dice, slow) if dice.random() < 0.5 else None
    engines = Engines(EnergyVad(), Recognizer(dice, slow), Model(dice, slow), Voice(dice, slow), judge)

    async def listen() -> None:
        while True:
            watch.look(await playout.next_frame())

    async with Session(Agent("a", "A"), engines, playout, settings(dice)) as session:
        session.subscribe(watch.tell)
        ear = asyncio.create_task(listen())
        start_s = loop.time() + dice.random() * FRAME_MS / 1000
        for i, level in enumerate(script(dice)):
            if ear.done():
                break
            await asyncio.sleep(max(0.0, start_s + i * FRAME_MS / 1000 - loop.time()))
            session.push_audio(np.full(FRAME_MS * SAMPLES_PER_MS, level, np.int16) if level else _nothing())
        watch.counts["revoked"] += session.revoked_replies
        ear.cancel()
        [failure] = await asyncio.gather(ear, return_exceptions=True)
    if isinstance(failure, Exception):
        raise failure
    return watch.counts


_nothing = partial(silence, FRAME_MS * SAMPLES_PER_MS)


def report(turns: int) -> str:
    """Run sessions until there were so many turns, and say what was seen, or which session broke the rule."""
    seen, seed = Counter[str](), 0
    while seen[TurnEnded.__name__] < turns:
        try:
            seen += converse(seed)
        except Stale as stale:
            raise Stale(f"session {seed}: {stale}") from stale
        seed += 1
    return (
        f"{seen['TurnEnded']} turns in {seed} sessions, {seen['audible frames']} audible frames, none stale: "
        f"{seen['revoked']} answers revoked, {seen['ReplyInterrupted']} interrupted ({seen['fades']} while heard), "
        f"{seen['ReplyFinished']} heard to the end, {seen['EngineFailed']} failures of engines"
    )
