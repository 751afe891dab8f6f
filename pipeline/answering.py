"""The agent's half of a session: replies are prepared, released, held, resumed, interrupted.

At most one reply exists. Barge-in is one synchronous block (``interrupt``): clear the playout, cancel the reply's task,
commit what was heard, tell. No await lies in it, hence no window in which a stale frame could leave.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import assert_never

from . import turn_actions as act
from .agents import Agent
from .echo import Echo
from .engines import Engines, prepare
from .events import (
    EngineFailed,
    Event,
    ReplyAudioStarted,
    ReplyClauseStarted,
    ReplyFinished,
    ReplyInterrupted,
)
from .history import History
from .playout import Playout, PlayoutListener
from .reply import Patience, Reply, StageFailed
from .tasks import cancel_and_wait
from .writer import Writer

log = logging.getLogger(__name__)

QUESTION_MARKS = "?？؟"
QUESTION_MS = 1000
"""A question is open for so much of what the agent goes on to say: people answer after it, not at its last sample."""


class Answering:
    """Own the reply, its task and the history. ``ended(reply, heard, interrupted)`` follows each terminal event."""

    def __init__(
        self,
        agent: Agent,
        engines: Engines,
        playout: Playout,
        history: History,
        patience: Patience,
        emit: Callable[[Event], None],
    ) -> None:
        self.playout = playout
        self.history = history
        self.echo = Echo()
        self.ended: Callable[[Reply, str, bool], None] = lambda reply, heard, interrupted: None
        self.audible: Callable[[], None] = lambda: None
        self.revoked_replies = 0
        self._agent = agent
        self._engines = engines
        self._patience = patience
        self._emit = emit
        self._number = 0
        self.asked = False
        """Words said over the agent are an answer, however short: when they were begun it had just asked, or had not
        been heard at all. Stands until they are forgotten."""
        self._reply: Reply | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        playout.listener = PlayoutListener(self._audio_started, self._clause_started, self._drained, self.echo.left)

    @property
    def idle(self) -> bool:
        """Whether there is no reply, not even a prepared one."""
        return self._reply is None

    def expect(self) -> None:
        """The caller begins to speak: let engines connect until there is something to ask, and note what was asked."""
        for engine in (self._engines.llm, self._engines.tts):
            prepare(engine)
        if self._reply is not None and self._reply.released:
            lately = self._reply.writer.heard_lately(QUESTION_MS)
            self.asked |= not lately or any(mark in lately for mark in QUESTION_MARKS)

    def carry_out(self, action: act.ReplyAction) -> None:
        """Do what turn taking asks of the agent."""
        match action:
            case act.PrepareReply(text):
                self.prepare(text)
            case act.RevokeReply():
                self.revoke()
            case act.DuckReply():
                self.duck()
            case act.UnduckReply():
                self.unduck()
            case act.HoldReply():
                self.hold()
            case act.ResumeReply():
                self.resume()
            case act.Interrupt():
                self.interrupt()
            case _:
                assert_never(action)

    def prepare(self, user: str) -> Reply:
        """Start an answer to ``user``, held; nothing of it shows until it is released."""
        self.revoke()
        prompt = self.history.prompt(user)
        return self._start(user, lambda: self._engines.llm.complete(prompt))

    def revoke(self) -> None:
        """Throw the prepared reply away, as if it had never been."""
        if self._reply is not None and not self._reply.released:
            self.revoked_replies += 1
            self._drop()

    def answer(self, user: str, *, speech_end_s: float, endpoint_s: float, stt_s: float | None) -> None:
        """The turn is over: release the reply prepared for these words, or start one. Times are the timeline's."""
        reply = self._reply
        if reply is None or reply.user != user:
            reply = self.prepare(user)
        self.history.commit_user(user)
        reply.timeline.begin(speech_end_s, endpoint_s, stt_s)
        reply.release()

    def say(self, text: str) -> None:
        """Speak a given text (a greeting) without asking the model."""
        self._start("", lambda: _one(text)).release()

    def hold(self) -> None:
        """Pause: the caller may be taking the floor."""
        if self._reply is not None:
            self._reply.writer.hold()

    def forget_caller(self) -> None:
        """What the caller said over the agent was nothing."""
        self.asked = False

    def resume(self) -> None:
        """Go on where it was held."""
        if self._reply is not None and self._reply.released:
            self._reply.writer.release()

    def duck(self) -> None:
        """Speak softer: the caller may be speaking. Nothing of the reply is lost by it."""
        if self._reply is not None:
            self._reply.writer.duck()

    def unduck(self) -> None:
        """Speak up again: it was nothing."""
        if self._reply is not None:
            self._reply.writer.unduck()

    def interrupt(self) -> None:
        """Take the floor from the agent. Synchronous: when it returns, the next frame is silent."""
        self.revoke()
        reply = self._drop()
        if reply is not None:
            self._end(reply, ReplyInterrupted(reply.number, reply.writer.heard()))

    async def close(self) -> None:
        """Interrupt, and wait until no task is left."""
        self.interrupt()
        self.playout.listener = PlayoutListener()
        await cancel_and_wait(*self._tasks)

    def _start(self, user: str, think: Callable[[], AsyncIterator[str]]) -> Reply:
        self._number += 1
        self.asked = False
        writer = self.playout.open(self._number, rate_hz=self._engines.tts.rate_hz, held=True)
        reply = self._reply = Reply(user, writer, self._emit)
        reply.task = asyncio.create_task(self._run(reply, think), name=f"reply {reply.number}")
        self._tasks.add(reply.task)
        reply.task.add_done_callback(self._tasks.discard)
        return reply

    async def _run(self, reply: Reply, think: Callable[[], AsyncIterator[str]]) -> None:
        try:
            await reply.run(think, self._engines.tts, self._agent, self._patience)
        except StageFailed as failure:
            log.warning("reply %d: %s failed: %s", reply.number, failure.stage, failure, exc_info=failure.__cause__)
            self._fail(reply, failure)

    def _fail(self, reply: Reply, failure: StageFailed) -> None:
        """End the reply at once. One that was only prepared goes quietly: the turn's end will try again."""
        if reply is not self._reply:
            return
        reply.task = None
        self._drop()
        if reply.released:
            self._end(reply, EngineFailed(failure.stage, str(failure), reply.number))

    def _drop(self) -> Reply | None:
        reply, self._reply = self._reply, None
        if reply is not None:
            self.playout.clear()
            if reply.task is not None:
                reply.task.cancel()
        return reply

    def _end(self, reply: Reply, event: ReplyInterrupted | ReplyFinished | EngineFailed) -> None:
        heard = reply.writer.heard()
        self.history.commit_heard(heard)
        self._emit(event)
        self.ended(reply, heard, not isinstance(event, ReplyFinished))

    def _spoken_by(self, writer: Writer) -> Reply | None:
        return self._reply if self._reply is not None and self._reply.writer is writer else None

    def _audio_started(self, writer: Writer) -> None:
        if (reply := self._spoken_by(writer)) is not None:
            reply.timeline.mark("first_audio", asyncio.get_running_loop().time())
            self.audible()
            self._emit(ReplyAudioStarted(writer.reply))

    def _clause_started(self, writer: Writer, text: str) -> None:
        if self._spoken_by(writer) is not None:
            self._emit(ReplyClauseStarted(writer.reply, text))

    def _drained(self, writer: Writer) -> None:
        if (reply := self._spoken_by(writer)) is not None:
            self._reply = None
            self._end(reply, ReplyFinished(reply.number, writer.heard()))


async def _one(text: str) -> AsyncIterator[str]:
    yield text
