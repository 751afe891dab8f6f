"""Conversations that nobody would think of: seeded chaos in virtual time, then a turn that must be answered."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from pipeline.agents import Agent
from pipeline.audio import AudioFrame, Pcm
from pipeline.engines import Engines
from pipeline.errors import EngineError
from pipeline.events import (
    EngineFailed,
    Event,
    Message,
    ReplyAudioStarted,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    Transcript,
    TranscriptUpdated,
    TurnEnded,
    TurnMeasured,
)
from pipeline.reply import Patience
from pipeline.session import Session
from pipeline.session_settings import SessionSettings, session_settings_for
from pipeline.speech import SpeechSettings
from pipeline.speech_detector import DetectorSettings
from pipeline.turn_settings import TurnSettings
from pipeline.vad.energy import EnergyVad

from .script import FRAME_MS, Played, check, conversation
from .virtual_time import VirtualTimeLoop, run

RATE_HZ = 24_000
WORD_SAMPLES = 8_000
"""A third of a second: words of four letters at 15 characters a second."""
LEVELS = range(2_000, 32_000)
DUCKED = LEVELS[0] // 5
"""Less than the softest clause has while the agent is ducked."""
FADE_SAMPLES = 120
PROBE = "." * 450 + "#" * 40 + "." * 200
"""Time for whatever still goes on to end, then a plain turn and its answer."""


@dataclass
class Chaos:
    """What may go wrong, and how slow everything is; none of it once ``over``."""

    dice: random.Random
    over: bool = False
    pressing: bool = False
    ended_in_a_press: list[TurnEnded] = field(default_factory=list)

    def happens(self, probability: float) -> bool:
        return not self.over and self.dice.random() < probability

    async def pause(self, up_to_s: float) -> None:
        """Take no time, some time, or (rarely) forever."""
        if self.happens(0.02):
            await asyncio.Event().wait()
        await asyncio.sleep(0.0 if self.over else self.dice.choice((0.0, 0.0, self.dice.random() * up_to_s)))

    def fail(self, probability: float) -> None:
        if self.happens(probability):
            raise self.dice.choice((EngineError, RuntimeError, TimeoutError, ValueError))("as it happens")


@dataclass
class ChaoticStt:
    """Hears murmurs as well as words; answers pauses late, never, twice, or an older one, with words that change."""

    chaos: Chaos
    hears_pauses: bool
    running: int = 0
    answered: int = 0

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        self.running += 1
        try:
            early = self.chaos.happens(0.05)
            at_samples: int | None = None
            pauses: list[int] = []
            async for frame in frames:
                assert at_samples is None or frame.pts == at_samples, "audio is contiguous"
                at_samples = frame.pts + len(frame.pcm)
                self.chaos.fail(0.002)
                if not len(frame.pcm):
                    pauses.append(frame.pts)
                    await self.chaos.pause(0.3)
                    for pause_samples in self._answers(pauses):
                        yield Transcript(self._words(), False, language, pause_samples)
                if self.chaos.happens(0.1):
                    yield Transcript("so far", False, language)
                if early and self.chaos.happens(0.1):
                    break
            await self.chaos.pause(1.0)
            self.chaos.fail(0.05)
            yield Transcript(self._words(), True, language)
        finally:
            self.running -= 1

    def _answers(self, pauses: Sequence[int]) -> Sequence[int]:
        """Return the pauses to answer now."""
        self.answered += 1
        if self.chaos.happens(0.7):
            return self.chaos.dice.choice((pauses[:0], pauses[:1], [pauses[-1]] * 2, pauses))
        return pauses[-1:]

    def _words(self) -> str:
        if self.chaos.happens(0.4):
            return self.chaos.dice.choice(("", "yeah", "Mm-hm.", "okay, yes"))
        return f"words {self.chaos.dice.randrange(3)}"


@dataclass
class ChaoticLlm:
    chaos: Chaos
    running: int = 0
    prompts: list[list[Message]] = field(default_factory=list)

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        self.prompts.append(list(messages))
        self.running += 1
        try:
            await self.chaos.pause(1.0)
            for _ in range(0 if self.chaos.happens(0.05) else self.chaos.dice.randint(1, 4)):
                yield "word " * self.chaos.dice.randint(1, 4)
                await self.chaos.pause(0.1)
                self.chaos.fail(0.03)
                yield self.chaos.dice.choice(("done. ", "here, ", "oops\n", "\U0001f600 "))
            yield "word."
        finally:
            self.running -= 1


@dataclass
class ChaoticTts:
    """Speaks every clause at a level of its own, so that each sample played tells whose it is."""

    chaos: Chaos
    running: int = 0
    rate_hz: int = RATE_HZ
    clauses: list[str] = field(default_factory=list)

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        self.clauses.append(clause)
        level = LEVELS[len(self.clauses)]
        self.running += 1
        try:
            await self.chaos.pause(0.5)
            left_samples = 0 if self.chaos.happens(0.03) else len(clause.split()) * WORD_SAMPLES
            if left_samples and self.chaos.happens(0.3):
                yield np.zeros(2_000, np.int16)
            while left_samples:
                piece_samples = min(left_samples, self.chaos.dice.choice((100, 1_000, 5_000)))
                self.chaos.fail(0.005)
                yield np.full(piece_samples, level, np.int16)
                left_samples -= piece_samples
                await self.chaos.pause(piece_samples / RATE_HZ)
        finally:
            self.running -= 1


@dataclass
class JoiningTts(ChaoticTts):
    """The same voice, which wants to know where a reply begins and ends, and takes its time to end it."""

    speeches: int = 0

    def open(self, voice: str | None, language: str, speed: float) -> JoinedSpeech:
        self.speeches += 1
        return JoinedSpeech(self)


@dataclass
class JoinedSpeech:
    tts: JoiningTts

    def speak(self, clause: str) -> AsyncIterator[Pcm]:
        return self.tts.synthesize(clause, None, "en", 1.0)

    async def aclose(self) -> None:
        self.tts.speeches -= 1
        await asyncio.sleep(self.tts.chaos.dice.random() * 0.1)


@dataclass
class ChaoticTurn:
    chaos: Chaos

    async def is_complete(self, audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        await self.chaos.pause(0.3)
        self.chaos.fail(0.1)
        return 1.0 if self.chaos.over else self.chaos.dice.random()


def _script(dice: random.Random) -> str:
    """Speech and silence of 20 ms to 2 s each."""
    bursts = (dice.choice("#.") * dice.choice((1, 3, 8, 20, 40, 100)) for _ in range(dice.randint(3, 25)))
    return "".join(bursts)


def _steering(dice: random.Random, chaos: Chaos, until_ms: int) -> Callable[[Session], None]:
    """Type, press, release, interrupt, greet, stall the loop at any time; end it all at ``until_ms``."""

    def press(session: Session) -> None:
        session.start_speech()
        chaos.pressing = True

    def release(session: Session) -> None:
        chaos.pressing = False
        session.end_speech()

    def type_words(session: Session) -> None:
        chaos.pressing = False
        session.push_text("typed")

    def note(event: Event) -> None:
        if isinstance(event, TurnEnded) and chaos.pressing:
            chaos.ended_in_a_press.append(event)

    def stall(session: Session) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.now_s += dice.random() * 0.4

    acts: tuple[Callable[[Session], None], ...] = (
        type_words,
        lambda session: session.push_text(""),
        press,
        press,
        release,
        release,
        Session.interrupt,
        Session.greet,
        stall,
    )

    def schedule(session: Session) -> None:
        loop = asyncio.get_running_loop()
        session.subscribe(note)
        for _ in range(dice.choice((0, 2, 6, 20))):
            loop.call_later(dice.random() * until_ms / 1000, dice.choice(acts), session)
        loop.call_later(until_ms / 1000, setattr, chaos, "over", True)
        loop.call_later(until_ms / 1000, release, session)

    return schedule


def _settings(dice: random.Random) -> SessionSettings:
    base = SessionSettings(
        SpeechSettings(pause_ms=dice.choice((100, 200))),
        TurnSettings(
            endpoint_ms=dice.choice((150, 400)),
            max_utterance_ms=dice.choice((1_000, 30_000)),
            max_turn_ms=dice.choice((3_000, 600_000)),
            allow_interruptions=dice.random() < 0.7,
        ),
        Patience(1.0, 1.0, 1.0),
    )
    detector = DetectorSettings(0.2, dice.choice((0.1, 0.3)), dice.choice((0.2, 0.6)), dice.choice((1.0, 10.0)))
    return session_settings_for(detector, base) if dice.random() < 0.3 else base


@dataclass
class Conversation:
    """One conversation and the engines that served it."""

    played: Played
    stt: ChaoticStt
    llm: ChaoticLlm
    tts: ChaoticTts
    agent: Agent
    chaos: Chaos
    abandoned: list[object]
    """Asynchronous generators that were left to the garbage collector."""


def _converse(seed: int, *, probe: bool) -> Conversation:
    dice = random.Random(seed)
    chaos = Chaos(dice)
    stt, llm = ChaoticStt(chaos, hears_pauses=seed % 4 != 0), ChaoticLlm(chaos)
    tts = (JoiningTts if seed % 2 else ChaoticTts)(chaos)
    turn = ChaoticTurn(chaos) if dice.random() < 0.5 else None
    script = _script(dice)
    agent = Agent("a", "A", greeting=dice.choice(("", "word word word.")))
    abandoned: list[object] = []

    async def main() -> Played:
        sys.set_asyncgen_hooks(finalizer=abandoned.append)
        return await conversation(
            script + PROBE if probe else script,
            Engines(EnergyVad(0.2), stt, llm, tts, turn),
            _settings(dice),
            agent,
            (0, _steering(dice, chaos, len(script) * FRAME_MS)),
        )

    return Conversation(run(main()), stt, llm, tts, agent, chaos, abandoned)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_invariants_hold(seed: int) -> None:
    """Two conversations a seed: one is hung up in the middle, the other must answer a last, plain turn."""
    cut = _converse(seed, probe=False)
    _check_all(cut)
    whole = _converse(10_000 + seed, probe=True)
    _check_all(whole)
    _check_answered(whole.played)
    assert (whole.stt.answered > 0) is whole.stt.hears_pauses


def _check_all(of: Conversation) -> None:
    check(of.played)
    _check_turns(of.played)
    _check_sound(of)
    _check_words(of)
    assert (of.stt.running, of.llm.running, of.tts.running) == (0, 0, 0), "every engine's iterator was closed"
    if isinstance(of.tts, JoiningTts):
        assert of.tts.speeches == 0, "every reply's speech was closed"
    assert not of.abandoned
    assert not of.chaos.ended_in_a_press, "who holds the button has the floor"


def _check_turns(played: Played) -> None:
    turns = [event.turn for event in played.all(TurnEnded)]
    assert turns == list(range(1, len(turns) + 1))
    measured = [event.turn for event in played.all(TurnMeasured)]
    assert measured == sorted(set(measured))


def _check_sound(of: Conversation) -> None:
    """Nothing stale leaves, nothing is heard that was not played, frames keep to the clock."""
    live = finishing = False
    played_samples = 0
    for item in of.played.order:
        match item:
            case AudioFrame(silent=False):
                loud = int(np.count_nonzero(item.pcm >= DUCKED))
                assert live or finishing or loud <= FADE_SAMPLES, "a frame left that nobody may speak"
                played_samples += loud
                finishing = False
            case ReplyStarted():
                live, played_samples = True, 0
            case ReplyFinished() | ReplyInterrupted():
                # The frame whose leaving finishes a reply is returned right after this was told.
                live, finishing = False, isinstance(item, ReplyFinished)
                words = (played_samples + 480 * finishing) / WORD_SAMPLES
                assert len(item.heard.split()) <= words + 0.5, (item, words)
            case EngineFailed(reply=int()):
                live = False
    pts = [frame.pts for _, frame in of.played.frames]
    assert all(b - a > 0 and (b - a) % 480 == 0 for a, b in pairwise(pts))


def _check_words(of: Conversation) -> None:
    """What the model is asked alternates and ends with the caller; history is what was heard, no more."""
    for prompt in of.llm.prompts:
        roles = [message.role for message in prompt]
        assert roles[0] == "system" and roles[-1] == "user"
        assert all(a != b for a, b in pairwise(roles)), roles
        assert all(message.text for message in prompt)
    heard = [e.heard for e in of.played.all(ReplyFinished) + of.played.all(ReplyInterrupted)]
    remembered = sum(len(m.text.split()) for m in of.played.history if m.role == "assistant")
    assert remembered <= sum(len(text.split()) for text in heard) + 40 * len(of.played.all(EngineFailed))
    assert all(text.strip() for text in (e.text for e in of.played.all(TurnEnded)))


def _check_answered(played: Played) -> None:
    """After the chaos the session is as good as new."""
    begin_ms = (len(played.frames) and played.frames[-1][0]) - 200 * FRAME_MS
    assert [ms for ms, e in played.events if isinstance(e, TurnEnded) and ms > begin_ms], "the last turn ended"
    assert [ms for ms, e in played.events if isinstance(e, ReplyAudioStarted) and ms > begin_ms], "it was answered"
    finals = [e for ms, e in played.events if isinstance(e, TranscriptUpdated) and e.final and ms > begin_ms]
    assert len(finals) == 1
