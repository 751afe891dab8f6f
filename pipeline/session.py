"""One conversation: what the caller says goes in, events and the agent's voice come out.

A turn of speech, by file: ``listening`` (audio to speech events and words) -> ``turn_taking`` (whose floor it is) ->
``answering`` (replies: ``reply`` thinks and talks, ``writer`` and ``playout`` speak). A session glues them and owns
their tasks; it reads a clock only to tell how long things took.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, assert_never

from . import turn_taking as act
from .agents import Agent
from .answering import Answering
from .audio import SPEECH_RATE_HZ, Pcm
from .engines import Engines
from .events import EngineFailed, Event, SessionClosed, SpeechEnded, SpeechStarted, TranscriptUpdated, TurnEnded
from .history import History
from .listening import Listening, ListeningListener
from .playout import Playout
from .reply import Patience, Reply
from .speech import SpeechSettings
from .turn_taking import Action, TurnSettings, TurnTaking

log = logging.getLogger(__name__)

STEP_SAMPLES = 320
"""Audio is looked at in steps of at most 20 ms, so that large pieces decide what small ones would."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session listens, takes turns and waits for its engines."""

    speech: SpeechSettings = field(default_factory=SpeechSettings)
    turns: TurnSettings = field(default_factory=TurnSettings)
    patience: Patience = field(default_factory=Patience)


class Session:
    """Use as ``async with``: on the way out everything it started has ended.

    ``push_audio``, ``push_text``, ``greet`` and ``interrupt`` are synchronous, never block, and do nothing once it
    closes; a transport pulls frames from ``playout``. Listeners are called in the order of events; one that raises is
    logged and harms nobody. A listener must not call the session back: let it use ``loop.call_soon`` for that.
    """

    def __init__(
        self,
        agent: Agent,
        engines: Engines,
        playout: Playout,
        settings: SessionSettings | None = None,
        history: History | None = None,
    ) -> None:
        settings = settings or SessionSettings()
        self.agent = agent
        self.answering = Answering(
            agent, engines, playout, history or History(agent.system_prompt), settings.patience, self._emit
        )
        self.answering.ended = self._reply_ended
        self.answering.audible = self._reply_audible
        interruptible = settings.turns.allow_interruptions and agent.allow_interruptions
        self._turn_taking = TurnTaking(replace(settings.turns, allow_interruptions=interruptible))
        self._listening = Listening(
            engines,
            settings.speech,
            agent.language,
            settings.patience.stt_s,
            ListeningListener(self._words, self._turn_taking.completeness, self._stage_failed),
        )
        self._listeners: list[Callable[[Event], None]] = []
        self._turn = 0
        self._words_final_s: float | None = None
        self._deaf = False
        self._closed = False

    @property
    def playout(self) -> Playout:
        """Where the agent's voice comes out."""
        return self.answering.playout

    @property
    def history(self) -> History:
        """What was said so far."""
        return self.answering.history

    @property
    def revoked_replies(self) -> int:
        """Replies prepared in vain so far."""
        return self.answering.revoked_replies

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` with every event from now on; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._closed = True
        try:
            await self._listening.close()
        finally:
            await self.answering.close()
            self._emit(SessionClosed("closed" if error is None else type(error).__name__))
            self._listeners.clear()

    def greet(self) -> None:
        """Speak the agent's greeting, if it has one and nothing was said yet, or is being said."""
        quiet = self._turn_taking.caller is act.Caller.SILENT and self.answering.idle and not self.history.messages
        if self.agent.greeting and quiet and not self._closed:
            self._turn_taking.agent(act.Agent.THINKING)
            self.answering.say(self.agent.greeting)

    def push_audio(self, pcm: Pcm) -> None:
        """Hear the caller: 16 kHz samples that continue the last ones, in pieces of any length."""
        for i in range(0, len(pcm), STEP_SAMPLES):
            self._hear(pcm[i : i + STEP_SAMPLES])

    def push_text(self, text: str) -> None:
        """Take typed words as the caller's whole turn; the agent stops and answers them. Blank text is no turn."""
        if self._closed or not text.strip():
            return
        self.interrupt()
        self._listening.forget()
        self._turn_taking.reset()
        now_s = asyncio.get_running_loop().time()
        self._words_final_s = None
        self._end_turn(text, now_s)

    def interrupt(self) -> None:
        """Stop the agent at once. Synchronous: when it returns, the next frame is silent."""
        self.answering.interrupt()

    # --- the caller

    def _hear(self, pcm: Pcm) -> None:
        if self._closed or self._deaf:
            return
        try:
            heard = self._listening.push(pcm)
        except Exception as error:
            self._detector_failed(error)
            return
        for event in heard:
            self._speech(event)
        ear = self._listening.ear
        self._act(self._turn_taking.received(ear.heard_samples, ear.last_speech_samples, stirring=ear.stirring))

    def _detector_failed(self, error: Exception) -> None:
        """Listen no more, and let the agent go on if it was held: the call lives on typed words."""
        self._deaf = True
        log.error("speech detection failed", exc_info=error)
        self._emit(EngineFailed("vad", str(error)))
        self._turn_taking.reset()
        self._act([act.DropUtterance(), act.RevokeReply(), act.ResumeReply()])

    def _speech(self, event: SpeechStarted | SpeechEnded) -> None:
        self._emit(event)
        if isinstance(event, SpeechStarted):
            self._act(self._turn_taking.speech_started(event.at_samples))
        else:
            self._act(self._turn_taking.speech_ended(event.at_samples))

    def _words(self, text: str, final: bool) -> None:
        if final:
            self._words_final_s = asyncio.get_running_loop().time()
        self._emit(TranscriptUpdated(text, False, self._listening.language))
        if final and text and self._turn_taking.caller is act.Caller.PAUSED:
            self._listening.judge(text)
        self._act(self._turn_taking.words(text, final=final))

    def _stage_failed(self, stage: Literal["stt", "turn"], message: str) -> None:
        self._emit(EngineFailed(stage, message))

    # --- whose floor it is

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if not self._closed:
                self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case act.StartUtterance(from_samples):
                self._listening.start(from_samples)
            case act.EndUtterance():
                self._listening.end()
            case act.DropUtterance():
                self._listening.forget()
            case act.PrepareReply(text):
                self.answering.prepare(text)
            case act.RevokeReply():
                self.answering.revoke()
            case act.HoldReply():
                self.answering.hold()
            case act.ResumeReply():
                self.answering.resume()
            case act.Interrupt():
                self.answering.interrupt()
            case act.EndTurn(text):
                self._end_turn(text, self._speech_end_s())
            case _:
                assert_never(action)

    def _speech_end_s(self) -> float:
        """When the caller's last speech sample came in, on the loop's clock."""
        ear = self._listening.ear
        silent_s = (ear.heard_samples - ear.last_speech_samples) / SPEECH_RATE_HZ
        return asyncio.get_running_loop().time() - silent_s

    def _end_turn(self, text: str, speech_end_s: float) -> None:
        language = self._listening.language
        self._listening.forget()
        self._turn += 1
        self._emit(TranscriptUpdated(text, True, language))
        self._emit(TurnEnded(self._turn, text))
        self._turn_taking.agent(act.Agent.THINKING)
        self.answering.answer(
            text,
            speech_end_s=speech_end_s,
            endpoint_s=asyncio.get_running_loop().time(),
            stt_s=self._words_final_s,
        )

    # --- the agent

    def _reply_audible(self) -> None:
        self._turn_taking.agent(act.Agent.SPEAKING)

    def _reply_ended(self, reply: Reply, heard: str, interrupted: bool) -> None:
        if reply.user:
            self._emit(reply.timeline.measured(self._turn, interrupted=interrupted, user=reply.user, agent=heard))
        self._act(self._turn_taking.agent(act.Agent.LISTENING))

    def _emit(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener raised on %s", type(event).__name__)
