"""One reply: one task that thinks and talks, and one revocable writer.

Thinking (deltas to clauses) runs at most ``CLAUSES_AHEAD`` clauses ahead of talking (clauses to sound), so speech
starts with the first clause. While the reply is held, what it has to tell is kept back; a revoked reply never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Literal

from .agents import Agent
from .engines import TextToSpeech
from .errors import EngineError
from .events import Event, ReplyStarted, ReplyText
from .reply_speech import Speech, open_speech
from .tasks import Limited, canceled_by_its_owner_alone, closing
from .text import ClauseSplitter, longest_pause_ms
from .timeline import Timeline
from .writer import Writer

CLAUSES_AHEAD = 2
SHORT_CHARS = 20
"""A clause shorter than this takes the next one with it if that waits already: two words have no melody, and some
voices invent more of them. Never the first, which is heard soonest alone."""


class StageFailed(EngineError):
    """A stage of a reply failed, hung or gave nothing."""

    def __init__(self, stage: Literal["llm", "tts"], message: str) -> None:
        super().__init__(message)
        self.stage: Literal["llm", "tts"] = stage


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stage may give nothing before it counts as hung, in seconds."""

    stt_s: float = 10.0
    llm_s: float = 20.0
    tts_s: float = 10.0
    turn_s: float = 0.25
    """A judgment that comes later than this would delay the turn's end more than the silence rule does."""


class Reply:
    """The answer to ``user``. ``emit`` receives its events once it is released.

    ``released`` says that the turn is over and this is the answer. That its writer is *held* is another matter: a
    prepared reply is, and so is a released one while the caller may be interrupting.
    """

    def __init__(self, user: str, writer: Writer, emit: Callable[[Event], None]) -> None:
        self.user = user
        self.writer = writer
        self.timeline = Timeline()
        self.released = False
        self.task: asyncio.Task[None] | None = None
        self._emit = emit
        self._untold: list[Event] = [ReplyStarted(writer.reply)]
        self._clauses: asyncio.Queue[str | None] = asyncio.Queue(CLAUSES_AHEAD)

    @property
    def number(self) -> int:
        """The reply's number, as its events carry it."""
        return self.writer.reply

    @property
    def took_s(self) -> float | None:
        """From when it was begun to its first sound; None before that."""
        asked_s, ttfb_s = self.timeline.asked_s, self.timeline.ttfb_s
        return None if asked_s is None or ttfb_s is None else ttfb_s - asked_s

    def release(self) -> None:
        """The turn is over and this is the answer: tell what was kept back, and speak."""
        self.released = True
        untold, self._untold = self._untold, []
        for event in untold:
            self._emit(event)
        self.writer.release()

    async def run(
        self, think: Callable[[], AsyncIterator[str]], tts: TextToSpeech, agent: Agent, patience: Patience
    ) -> None:
        """Think and talk. Raises StageFailed, whatever the engine raised."""
        self._mark("asked")
        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._think(think, patience.llm_s), name=f"reply {self.number} think")
                stages.create_task(self._talk(tts, agent, patience.tts_s), name=f"reply {self.number} talk")
        except* StageFailed as failures:
            raise _first(failures) from None

    def _tell(self, event: Event) -> None:
        if self.writer.revoked:
            return  # the stages are canceled by the task, a turn of the event loop after the task itself
        if self.released:
            self._emit(event)
        else:
            self._untold.append(event)

    async def _think(self, think: Callable[[], AsyncIterator[str]], patience_s: float) -> None:
        splitter = ClauseSplitter()
        spoken = 0
        with _blame("llm", patience_s):
            async with closing(think()) as deltas:
                async for delta in Limited(deltas, patience_s):
                    self._mark("ttft")
                    self._tell(ReplyText(self.number, delta))
                    spoken += await self._pass_on(splitter.push(delta))
            spoken += await self._pass_on(splitter.flush())
            if not spoken:
                raise StageFailed("llm", "the language model answered nothing that can be spoken")
            self._tell(ReplyText(self.number, "", final=True))
            await self._clauses.put(None)

    async def _pass_on(self, clauses: list[str]) -> int:
        for clause in clauses:
            self._mark("first_clause")
            await self._clauses.put(clause)
        return len(clauses)

    async def _talk(self, tts: TextToSpeech, agent: Agent, patience_s: float) -> None:
        with _blame("tts", patience_s):
            async with aclosing(open_speech(tts, agent.voice, agent.language, agent.speed)) as speech:
                clause = await self._clauses.get()
                while clause is not None:
                    self.writer.begin(clause, longest_pause_ms(clause) / agent.speed)
                    await self._speak(clause, speech, patience_s)
                    clause = self._with_more(await self._clauses.get())
                self.writer.finish()

    def _with_more(self, clause: str | None) -> str | None:
        """Join a short clause and those that wait behind it; nothing is waited for."""
        while clause is not None and len(clause) < SHORT_CHARS and not self._clauses.empty():
            following = self._clauses.get_nowait()
            if following is None:
                self._clauses.put_nowait(None)
                break
            clause = f"{clause} {following}"
        return clause

    async def _speak(self, clause: str, speech: Speech, patience_s: float) -> None:
        samples = 0
        async with closing(speech.speak(clause)) as audio:
            async for pcm in Limited(audio, patience_s):
                self._mark("ttfb")
                samples += len(pcm)
                await self.writer.write(pcm)
        if not samples:
            raise StageFailed("tts", "the speech engine gave no sound")
        self.writer.end()

    def _mark(self, stage: str) -> None:
        self.timeline.mark(stage, asyncio.get_running_loop().time())


@contextmanager
def _blame(stage: Literal["llm", "tts"], patience_s: float) -> Iterator[None]:
    """Turn whatever a stage raises into StageFailed that names the stage."""
    try:
        with canceled_by_its_owner_alone():
            yield
    except StageFailed:
        raise
    except TimeoutError as error:
        raise StageFailed(stage, f"nothing came for {patience_s:g} s") from error
    except EngineError as error:
        raise StageFailed(stage, str(error)) from error
    except Exception as error:
        raise StageFailed(stage, f"{type(error).__name__}: {error}") from error


def _first(group: BaseExceptionGroup[StageFailed]) -> StageFailed:
    """Return a failure of the group, however deep."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
