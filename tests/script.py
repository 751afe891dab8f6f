"""A conversation as a line of text, run in virtual time.

One character is 20 ms of the caller: ``#`` speaks, ``.`` is silent; ``(`` presses the talk button, ``)`` releases it,
``T`` types, all in no time. ``play("....####....")`` runs the whole session with fakes and returns what left the
playout and what was told, each with its time in ms after the script's first frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np

from pipeline.agents import Agent
from pipeline.audio import AudioFormat, AudioFrame
from pipeline.engines import Engines
from pipeline.events import (
    EngineFailed,
    Event,
    Message,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    SpeechEnded,
    SpeechStarted,
)
from pipeline.playout import Playout
from pipeline.session import Session, SessionSettings

from .fakes import engines as fake_engines
from .virtual_time import run

E = TypeVar("E")
FRAME_MS = 20
SPEECH = np.full(320, 8_000, np.int16)
SILENCE = np.zeros(320, np.int16)
ACTS: dict[str, Callable[[Session], None]] = {
    "(": Session.start_speech,
    ")": Session.end_speech,
    "T": lambda session: session.push_text("typed"),
}


@dataclass
class Played:
    """What a run showed. Times in ms. ``order`` holds events and frames in the order in which they came."""

    events: list[tuple[float, Event]] = field(default_factory=list)
    frames: list[tuple[float, AudioFrame]] = field(default_factory=list)
    order: list[Event | AudioFrame] = field(default_factory=list)
    history: list[Message] = field(default_factory=list)
    session: Session | None = None

    def all(self, kind: type[E]) -> list[E]:
        """Return the events of a kind, in order."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def at(self, kind: type[E], index: int = 0) -> float:
        """Return when the ``index``-th event of a kind was told."""
        return [ms for ms, event in self.events if isinstance(event, kind)][index]

    def names(self) -> list[str]:
        """Return the events' names, in order."""
        return [type(event).__name__ for _, event in self.events]

    def audible(self) -> list[float]:
        """Return when frames with sound left."""
        return [ms for ms, frame in self.frames if not frame.silent]


async def conversation(
    script: str,
    engines: Engines | None = None,
    settings: SessionSettings | None = None,
    agent: Agent | None = None,
    at: tuple[float, Callable[[Session], None]] | None = None,
    lead_ms: int = 0,
) -> Played:
    """Run a script; ``at`` = (ms, what to do with the session then)."""
    played = Played()
    loop = asyncio.get_running_loop()
    playout = Playout(AudioFormat(24_000), lead_ms=lead_ms)
    start_s = loop.time()

    def now_ms() -> float:
        return round((loop.time() - start_s) * 1000, 3)

    async def listen() -> None:
        while True:
            frame = await playout.next_frame()
            played.frames.append((now_ms(), frame))
            played.order.append(frame)

    async with Session(agent or Agent("a", "A"), engines or fake_engines(), playout, settings) as session:
        session.subscribe(lambda event: played.events.append((now_ms(), event)))
        session.subscribe(played.order.append)
        ear = asyncio.create_task(listen())
        session.greet()
        if at is not None:
            loop.call_at(start_s + at[0] / 1000, at[1], session)
        frames = 0
        for char in script:
            if char in ACTS:
                ACTS[char](session)
                continue
            frames += 1
            await asyncio.sleep(max(0.0, start_s + frames * FRAME_MS / 1000 - loop.time()))
            session.push_audio(SPEECH if char == "#" else SILENCE)
        played.history = list(session.history.messages)
        ear.cancel()
        await asyncio.gather(ear, return_exceptions=True)
    played.session = session
    return played


def play(script: str, engines: Engines | None = None, **more: object) -> Played:
    """Run a conversation in virtual time and check what must hold of any."""
    played = run(conversation(script, engines, **more))  # type: ignore[arg-type]
    check(played)
    return played


def check(played: Played) -> None:
    """Check the invariants: one terminal event a reply, alternating history, speech that starts and ends in turns."""
    started = [e.reply for e in played.all(ReplyStarted)]
    assert len(set(started)) == len(started)
    _check_replies(played)
    roles = [m.role for m in played.history]
    assert all(a != b for a, b in pairwise(roles)), roles
    speech = [event for _, event in played.events if isinstance(event, SpeechStarted | SpeechEnded)]
    assert all(isinstance(event, SpeechEnded) == i % 2 for i, event in enumerate(speech)), speech
    assert all(a.at_samples <= b.at_samples for a, b in pairwise(speech)), speech
    assert played.names()[-1] == "SessionClosed"


def _check_replies(played: Played) -> None:
    """A reply's events lie between its start and its one end, and two replies never overlap."""
    live: int | None = None
    for _, event in played.events:
        number = getattr(event, "reply", None)
        if isinstance(event, ReplyStarted):
            assert live is None, f"{event} while {live} goes on"
            live = number
        elif number is not None:
            assert number == live, f"{event} while {live} is live"
        if number is not None and isinstance(event, ReplyFinished | ReplyInterrupted | EngineFailed):
            live = None
    assert live is None
