"""One conversation: what the caller says goes in, events and the agent's voice come out.

A turn of speech, by file: ``listening`` (audio to speech events and words) -> ``turn_taking`` (whose floor it is) ->
``answering`` (replies: ``reply`` thinks and talks, ``writer`` and ``playout`` speak). A session glues them and owns
their tasks; it reads a clock only to tell how long things took.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Literal, Self

from . import turn_actions as act
from .agents import Agent
from .answering import Answering
from .audio import SAMPLES_PER_MS, Pcm
from .backchannel import is_backchannel
from .engines import Engines
from .events import EngineFailed, Event, SessionClosed, SpeechEnded, SpeechStarted, TranscriptUpdated, TurnEnded
from .floor import Agent as AgentState
from .floor import Caller
from .history import History
from .listening import Listening, ListeningListener, asks
from .playout import Playout
from .reply import Reply
from .session_settings import SessionSettings as SessionSettings
from .turn_actions import Action
from .turn_taking import TurnTaking

log = logging.getLogger(__name__)

STEP_SAMPLES = 320
"""Audio is looked at in steps of at most 20 ms, so that large pieces decide what small ones would."""


class Session:
    """Use as ``async with``: on the way out everything it started has ended.

    ``push_audio``, ``push_text``, ``start_speech``, ``end_speech``, ``greet`` and ``interrupt`` are synchronous, never
    block, and do nothing once it closes; a transport pulls frames from ``playout``. Listeners are called in the order
    of events; one that raises is logged and harms nobody. A listener must not call the session back: let it use
    ``loop.call_soon`` for that.
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
        self._turn_taking = TurnTaking(replace(settings.turns, allow_interruptions=interruptible), asks(engines.turn))
        self._listening = Listening(
            engines,
            settings.speech,
            agent.language,
            settings.patience,
            ListeningListener(self._words, lambda p: self._act(self._turn_taking.judged(p)), self._stage_failed),
            lambda: ", ".join(self.history.names()),
            self.answering.echo,
        )
        self._listeners: list[Callable[[Event], None]] = []
        self._turn = 0
        self.response_ms: float | None = None
        """From the caller's last sample to the agent's first, in the last spoken turn that had an answer."""
        self._told = ""
        self._known: tuple[str, float] | None = None  # all words so far, and since when
        self._release_samples: int | None = None
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
    def state(self) -> Literal["listening", "caller speaking", "thinking", "agent speaking"]:
        """What is going on; the caller speaks, pauses and all, until their turn is over."""
        if self._turn_taking.caller not in (Caller.SILENT, Caller.DONE):
            return "caller speaking"
        if self._turn_taking.speaker is AgentState.SPEAKING:
            return "agent speaking"
        idle = self._turn_taking.speaker is AgentState.LISTENING and self._turn_taking.caller is Caller.SILENT
        return "listening" if idle else "thinking"

    @property
    def turns(self) -> int:
        """The caller's turns so far."""
        return self._turn

    @property
    def revoked_replies(self) -> int:
        """Replies prepared in vain so far."""
        return self.answering.revoked_replies

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` with every event from now on; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def __aenter__(self) -> Self:
        self.answering.expect()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._closed = True
        async with AsyncExitStack() as last_first:  # and all of it, also where leaving is canceled
            last_first.callback(self._listeners.clear)
            last_first.callback(self._emit, SessionClosed("closed" if error is None else type(error).__name__))
            last_first.push_async_callback(self.answering.close)
            last_first.push_async_callback(self._listening.close)

    def greet(self) -> None:
        """Speak the agent's greeting, if it has one and nothing was said yet, or is being said."""
        quiet = self._turn_taking.caller is Caller.SILENT and self.answering.idle and not self.history.messages
        if self.agent.greeting and quiet and not self._closed:
            self._turn_taking.agent(AgentState.THINKING)
            self.answering.say(self.agent.greeting)

    def push_audio(self, pcm: Pcm) -> None:
        """Hear the caller: 16 kHz samples that continue the last ones, in pieces of any length."""
        for i in range(0, len(pcm), STEP_SAMPLES):
            self._hear(pcm[i : i + STEP_SAMPLES])

    def push_text(self, text: str) -> None:
        """Take typed words as the caller's whole turn; the agent stops and answers them. Blank text is no turn.

        An agent that may not be interrupted finishes first, and then answers all that was typed meanwhile.
        """
        if text.strip():
            self._act(self._turn_taking.typed(text, self._listening.ear.heard_samples))

    def start_speech(self) -> None:
        """The caller holds the talk button: they have the floor, and until ``end_speech`` no pause ends their turn.

        An agent that may not be interrupted finishes what it says. Without speech detection, which failed, nothing
        happens.
        """
        if self._closed or self._deaf:
            return
        self._release_samples = None
        ear = self._listening.ear
        self._tell(ear.press())
        self._act(self._turn_taking.pressed(ear.heard_samples))

    def end_speech(self, *, in_flight_ms: int = 0) -> None:
        """The talk button is released: the turn is over, and answered the moment its words are final.

        So much of the caller's sound from before the release has yet to be pushed (``in_flight_ms``): it belongs to the
        turn, which ends after it. Pressed again before that, the button was never released. A press without words is
        no turn. Without a press nothing happens.
        """
        now_samples = self._listening.ear.heard_samples
        slipped = self._turn_taking.slipped(now_samples)
        self._release_samples = now_samples + (0 if slipped else in_flight_ms * SAMPLES_PER_MS)
        self._release_when_heard()

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
        self._release_when_heard()

    def _release_when_heard(self) -> None:
        ear = self._listening.ear
        if self._release_samples is not None and ear.heard_samples >= self._release_samples:
            self._release_samples = None
            self._tell(ear.release(slipped=self._turn_taking.slipped(ear.heard_samples)))
            self._act(self._turn_taking.released(ear.heard_samples))

    def _detector_failed(self, error: Exception) -> None:
        """Listen no more, and let the agent go on if it was held: the call lives on typed words."""
        self._deaf = True
        log.error("speech detection failed", exc_info=error)
        ear = self._listening.ear
        self._tell(ear.cut())
        self._emit(EngineFailed("vad", str(error)))
        self._act(self._turn_taking.deafened(ear.heard_samples))

    def _speech(self, event: SpeechStarted | SpeechEnded) -> None:
        self._emit(event)
        if isinstance(event, SpeechStarted):
            self.answering.expect()
            self._act(self._turn_taking.speech_started(event.at_samples))
        else:
            self._act(self._turn_taking.speech_ended(event.at_samples))

    def _words(self, text: str, final: bool, settled: bool) -> None:
        if (final or settled) and (self._known is None or self._known[0] != text):
            self._known = text, asyncio.get_running_loop().time()
        self._caption(text)
        backchannel = not self.answering.asked and is_backchannel(text, self._listening.language or self.agent.language)
        self._act(self._turn_taking.words(text, final=final, settled=settled, backchannel=backchannel))

    def _caption(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._emit(TranscriptUpdated(text, False, self._listening.language))

    def _stage_failed(self, stage: Literal["stt", "turn"], message: str) -> None:
        self._emit(EngineFailed(stage, message))

    # --- whose floor it is

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if not self._closed:
                self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        match action:
            case act.StartUtterance() | act.SettleWords() | act.EndUtterance() | act.Judge():
                self._listening.carry_out(action)
            case act.DropUtterance():
                self._listening.forget()
                self.answering.forget_caller()
                self._caption("")
                self._known = None
            case act.CutSpeech():
                self._tell(self._listening.ear.cut())
            case act.EndTurn(text, ended_samples):
                self._end_turn(text, ended_samples)
            case _:
                self.answering.carry_out(action)

    def _end_turn(self, text: str, ended_samples: int | None) -> None:
        now_s = asyncio.get_running_loop().time()
        language = self._listening.language
        self._listening.forget()
        self._turn += 1
        self._emit(TranscriptUpdated(text, True, language))
        self._emit(TurnEnded(self._turn, text))
        next_turn = self._turn_taking.agent(AgentState.THINKING)
        known, self._known, self._told = self._known, None, ""
        self.answering.answer(
            text,
            speech_end_s=now_s if ended_samples is None else self._listening.came_in_s(ended_samples),
            endpoint_s=now_s,
            stt_s=known and known[1],
        )
        self._act(next_turn)

    # --- the agent

    def _reply_audible(self) -> None:
        self._turn_taking.agent(AgentState.SPEAKING)

    def _reply_ended(self, reply: Reply, heard: str, interrupted: bool) -> None:
        if reply.user:
            measured = reply.timeline.measured(self._turn, interrupted=interrupted, user=reply.user, agent=heard)
            if measured.was_spoken and measured.first_audio_ms is not None:
                self.response_ms = measured.first_audio_ms
            self._emit(measured)
            if reply.took_s is not None:
                self._turn_taking.endpointing.answer_took(reply.took_s * 1000)
        self._act(self._turn_taking.agent(AgentState.LISTENING))

    def _tell(self, event: Event | None) -> None:
        if event is not None and not self._closed:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener raised on %s", type(event).__name__)
