"""Engines whose answers are scripted and whose delays run on the loop's clock; they note when they were closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.audio import AudioFrame, Pcm
from pipeline.engines import Engines
from pipeline.events import Message, Transcript
from pipeline.tasks import closing

RATE_HZ = 24_000
LOUD = 9_000


class LoudnessDetector:
    """Loud is speech, in windows of 10 ms."""

    window_samples = 160

    def open(self) -> LoudnessDetector:
        return self

    def probability(self, window: Pcm) -> float:
        return float(np.abs(window).max() > 1_000)


@dataclass
class FakeStt:
    """Says ``texts`` one utterance after another, ``delay_s`` after its end.

    ``partials``: word by word as audio comes, one each ``s_per_word``. One that ``hears_pauses`` says at each of them
    the words that were said by then.
    """

    texts: Sequence[str] = ("hello there",)
    delay_s: float = 0.0
    partials: bool = False
    hears_pauses: bool = False
    s_per_word: float = 0.2
    fail: Exception | None = None
    calls: int = 0
    frames: list[AudioFrame] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        text = self.texts[self.calls % len(self.texts)]
        self.calls += 1
        self.prompts.append(prompt)
        words = text.split()
        told, heard_s = 0, 0.0
        async for frame in frames:
            self.frames.append(frame)
            heard_s += frame.duration_s
            said = min(len(words), int(heard_s / self.s_per_word + 1e-6))
            if not len(frame.pcm):
                await asyncio.sleep(self.delay_s)
                yield Transcript(" ".join(words[:said]), False, language, frame.pts)
            elif self.partials and said > told:
                told = said
                yield Transcript(" ".join(words[:said]), False, language)
        if self.fail is not None:
            raise self.fail
        await asyncio.sleep(self.delay_s)
        yield Transcript(text, True, language)


@dataclass
class FakeLlm:
    """Answers ``text`` word by word."""

    text: str = "One two three four. Five six seven eight. Nine ten eleven twelve."
    ttft_s: float = 0.0
    per_word_s: float = 0.0
    fail_after_words: int | None = None
    hang: bool = False
    prompts: list[list[Message]] = field(default_factory=list)
    closed: int = 0

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        self.prompts.append(list(messages))
        try:
            await asyncio.sleep(self.ttft_s)
            if self.hang:
                await asyncio.Event().wait()
            for i, word in enumerate(self.text.split()):
                if i == self.fail_after_words:
                    raise RuntimeError("the model fell over")
                yield word + " "
                await asyncio.sleep(self.per_word_s)
        finally:
            self.closed += 1


@dataclass
class FakeTts:
    """Speaks ``s_per_word`` of a loud constant per word, in pieces of 100 ms, ``rtf`` of real time each."""

    ttfb_s: float = 0.0
    rtf: float = 0.0
    s_per_word: float = 0.25
    fail_after_s: float | None = None
    silent: bool = False
    rate_hz: int = RATE_HZ
    calls: list[str] = field(default_factory=list)
    closed: int = 0

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        self.calls.append(clause)
        try:
            await asyncio.sleep(self.ttfb_s)
            left_s = 0.0 if self.silent else len(clause.split()) * self.s_per_word
            said_s = 0.0
            while left_s > 1e-9:
                if self.fail_after_s is not None and said_s >= self.fail_after_s:
                    raise RuntimeError("the voice broke")
                piece_s = min(0.1, left_s)
                await asyncio.sleep(piece_s * self.rtf)
                yield np.full(round(piece_s * self.rate_hz), LOUD, np.int16)
                left_s -= piece_s
                said_s += piece_s
        finally:
            self.closed += 1


@dataclass
class JoiningTts(FakeTts):
    """Joins the clauses of a reply: one speech each."""

    speeches: list[FakeSpeech] = field(default_factory=list)

    def open(self, voice: str | None, language: str, speed: float) -> FakeSpeech:
        self.speeches.append(FakeSpeech(self))
        return self.speeches[-1]


@dataclass
class FakeSpeech:
    """Notes what was said in it, whether two clauses met, how often it was closed, and whether in time."""

    tts: JoiningTts
    clauses: list[str] = field(default_factory=list)
    speaking: int = 0
    closed: int = 0

    async def speak(self, clause: str) -> AsyncIterator[Pcm]:
        assert not self.speaking and not self.closed, "one clause at a time, and none after the end"
        self.clauses.append(clause)
        self.speaking += 1
        try:
            async with closing(self.tts.synthesize(clause, None, "en", 1.0)) as sound:
                async for pcm in sound:
                    yield pcm
        finally:
            self.speaking -= 1

    async def aclose(self) -> None:
        assert not self.speaking, "the clause ends first"
        self.closed += 1


def engines(stt: FakeStt | None = None, llm: FakeLlm | None = None, tts: FakeTts | None = None) -> Engines:
    """Bundle fakes; those not given answer at once."""
    return Engines(LoudnessDetector(), stt or FakeStt(), llm or FakeLlm(), tts or FakeTts())
