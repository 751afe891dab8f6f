"""Who has the floor: a state machine over counted samples. No clock, no timer, no await.

Theory of operation. The caller is *silent*, *speaking*, *paused* (silent inside a turn that is not over yet),
*pressing* the talk button, or *done* (nothing more belongs to the turn, but its last words are still being transcribed
or the agent must be let finish); the agent is *listening*, *thinking* (its turn, nothing audible yet) or *speaking*.

    caller    agent      what happens                     next     actions
    --------  ---------  -------------------------------  -------  ----------------------------------------
    silent    listening  speech starts                    speaking StartUtterance
    silent    thinking,  speech starts                    speaking HoldReply, StartUtterance  (contested)
              speaking
    speaking  (contested) barge_in_ms of it was speech    speaking Interrupt                  (floor taken)
    speaking  (contested) speech ends before that         silent   DropUtterance, ResumeReply
    speaking  any        max_utterance_ms reached         speaking EndUtterance, StartUtterance
    speaking  (floor)    silent for judge_ms              speaking Judge  (again if the words change)
    speaking  listening  speech ends                      paused   EndUtterance, Judge
    paused    listening  words final                      paused   PrepareReply (held; once per wording)
    paused    listening  speech starts                    speaking StartUtterance  (same turn)
    any       listening  words change after a preparation -        RevokeReply
    paused    listening  silence long enough, words final silent   EndTurn; DropUtterance if nobody said anything
    speaking, listening  max_turn_ms reached              done     CutSpeech, EndUtterance
    paused
    (contested)          the reply ends by itself         speaking -  (an ordinary utterance from now on)
    any       any        talk button pressed              pressing Interrupt  (the turn, if there is one, goes on)
    pressing  any        min_press_ms of it               pressing StartUtterance  (unless one is open)
    pressing  any        max_utterance_ms reached         pressing EndUtterance, StartUtterance
    pressing  any        released                         done     EndUtterance
    pressing  any        max_press_ms reached             done     CutSpeech, EndUtterance
    done      listening  words final                      silent   EndTurn; DropUtterance if nobody said anything
    done      any        speech starts                    done     -  (waits until the turn has ended)
    any       any        text typed                       silent   Interrupt, DropUtterance, EndTurn

"Long enough" is ``endpoint_ms`` of audio, or what `endpointing` makes of an end-of-turn engine's judgment (Judge).
Words may arrive after that silence; the turn then ends the moment they do, or are judged.

An agent that may not be interrupted is let finish. Speech over it waits, and is taken up if it still goes on then. What
is said with the button pressed, and what is typed, is *done* meanwhile and answered as soon as the agent listens.
"""

from __future__ import annotations

from enum import Enum, auto

from . import turn_actions as act
from .audio import SAMPLES_PER_MS
from .endpointing import Asks, Endpointing
from .running_turn import Burst, RunningTurn
from .turn_actions import Action
from .turn_settings import TurnSettings as TurnSettings


class Caller(Enum):
    """What the caller is doing."""

    SILENT = auto()
    SPEAKING = auto()
    PAUSED = auto()
    PRESSING = auto()
    DONE = auto()


class Agent(Enum):
    """What the agent is doing."""

    LISTENING = auto()
    THINKING = auto()
    SPEAKING = auto()


class TurnTaking:
    """Facts in, actions out, in order. The one who calls carries the actions out before the next fact."""

    def __init__(self, settings: TurnSettings, asks: Asks = Asks.NEVER) -> None:
        self._settings = settings
        self._endpointing = Endpointing(settings, asks)
        self.caller = Caller.SILENT
        self._agent = Agent.LISTENING
        self._contested = False
        self._started_samples = 0
        self._settled_samples = 0  # what came before has been transcribed, or never will be
        self._turn = RunningTurn()
        self._waiting: Burst | None = None

    @property
    def speaker(self) -> Agent:
        """What the agent is doing."""
        return self._agent

    def speech_started(self, at_samples: int) -> list[Action]:
        """The detector says the caller began to speak."""
        if self.caller is Caller.PRESSING:
            return []
        if self.caller is Caller.DONE or self._must_wait:
            self._waiting = Burst(self._waiting.since_samples if self._waiting else at_samples)
            return []
        self._begin(at_samples)
        self._contested = self._agent is not Agent.LISTENING
        start = self._start_utterance(at_samples)
        return [act.HoldReply(), start] if self._contested else [start]

    def speech_ended(self, at_samples: int) -> list[Action]:
        """The detector says the caller fell silent after ``at_samples``."""
        if self._waiting is not None:
            since = self._waiting.since_samples
            self._waiting = Burst(since, at_samples) if self._settings.allow_interruptions else None
        if self.caller is not Caller.SPEAKING:
            return []
        if self._contested:
            self.reset()
            return [act.DropUtterance(), act.ResumeReply()]
        self.caller = Caller.PAUSED
        return self._end_utterance(at_samples) + self._endpointing.ask(self._turn.text)

    def pressed(self, at_samples: int) -> list[Action]:
        """The caller holds the talk button from here on: theirs is the floor, and no pause ends their turn."""
        if self.caller is Caller.PRESSING:
            return []
        self.caller, self._contested, self._waiting = Caller.PRESSING, False, None
        self._turn.began_samples = at_samples
        if not self._turn.open:
            self._started_samples = at_samples
        return [] if self._agent is Agent.LISTENING or self._must_wait else [act.Interrupt()]

    def released(self, at_samples: int) -> list[Action]:
        """The caller let go of the talk button: their turn is over."""
        return self._finish(at_samples) if self.caller is Caller.PRESSING else []

    def typed(self, text: str, at_samples: int) -> list[Action]:
        """The caller typed a whole turn: it replaces the one being spoken, or joins the one that waits."""
        if not self._must_wait:
            self.reset()
            self._waiting, self._settled_samples = None, at_samples
            return [act.Interrupt(), act.DropUtterance(), act.EndTurn(text, None)]
        self._turn.type(text)
        if self.caller is Caller.SILENT:
            self.caller = Caller.DONE
        return []

    def received(self, now_samples: int, last_speech_samples: int, *, stirring: bool = False) -> list[Action]:
        """So many samples have been received, and speech last sounded there.

        ``stirring``: the detector suspects speech right now, so a turn must not end in this very moment.
        """
        match self.caller:
            case Caller.SPEAKING:
                return self._while_speaking(now_samples, last_speech_samples)
            case Caller.PRESSING:
                return self._while_pressing(now_samples)
            case Caller.PAUSED:
                return self._while_paused(now_samples, stirring)
        return []

    def words(self, text: str, *, final: bool) -> list[Action]:
        """The turn's words so far; ``final`` once every utterance of it is transcribed."""
        turn = self._turn
        turn.text, turn.final = text, final
        actions: list[Action] = []
        if turn.prepared is not None and text != turn.prepared:
            turn.prepared = None
            actions.append(act.RevokeReply())
        actions += self._endpointing.reworded(text)
        return actions + (self._end_if_over() or self._prepare())

    def judged(self, probability: float | None) -> list[Action]:
        """The answer to the last Judge: how probable it is that the turn is over; None if there was none in time."""
        self._endpointing.answered(probability)
        return self._end_if_over()

    def agent(self, state: Agent) -> list[Action]:
        """The agent's state changed."""
        self._agent = state
        self._contested = self._contested and state is not Agent.LISTENING
        return self._end_if_over() if self.caller is Caller.DONE else self._take_up()

    def deafened(self, at_samples: int) -> list[Action]:
        """Nothing more will be heard: what is being said is lost, but what was said to the end is still answered."""
        self._waiting = None
        if self.caller is Caller.DONE:
            return []
        if self.caller is Caller.PRESSING:
            return self._finish(at_samples)
        self.reset()
        return [act.DropUtterance(), act.RevokeReply(), act.ResumeReply()]

    def reset(self) -> None:
        """Forget the running turn (it was answered, typed over, or nothing)."""
        self.caller = Caller.SILENT
        self._contested = False
        self._turn = RunningTurn()
        self._endpointing.forget()

    @property
    def _must_wait(self) -> bool:
        return self._agent is not Agent.LISTENING and not self._settings.allow_interruptions

    def _begin(self, at_samples: int) -> None:
        if self.caller is Caller.SILENT:
            self._turn.began_samples = at_samples
        self.caller = Caller.SPEAKING
        self._started_samples = at_samples
        self._turn.silent_samples = 0
        self._endpointing.forget()

    def _start_utterance(self, at_samples: int) -> act.StartUtterance:
        # The pre-roll ends where the speech before ended: its last word would be transcribed twice.
        self._turn.open, self._turn.final = True, False
        return act.StartUtterance(max(self._settled_samples, at_samples - self._settings.preroll_ms * SAMPLES_PER_MS))

    def _end_utterance(self, at_samples: int) -> list[Action]:
        self._settled_samples = at_samples
        if not self._turn.open:
            return []
        self._turn.open, self._turn.ended_samples = False, at_samples
        return [act.EndUtterance()]

    def _while_speaking(self, now_samples: int, last_speech_samples: int) -> list[Action]:
        spoken_samples = last_speech_samples - self._started_samples
        if self._contested and spoken_samples >= self._settings.barge_in_ms * SAMPLES_PER_MS:
            self._contested = False
            return [act.Interrupt()]
        if self._contested:
            return self._split(now_samples)
        if self._lasts(now_samples, self._settings.max_turn_ms):
            return self._cut(now_samples)
        return self._judge(now_samples - last_speech_samples) + self._split(now_samples)

    def _judge(self, silent_samples: int) -> list[Action]:
        if silent_samples >= self._settings.judge_ms * SAMPLES_PER_MS:
            return self._endpointing.ask(self._turn.text)
        self._endpointing.forget()
        return []

    def _while_pressing(self, now_samples: int) -> list[Action]:
        if self._lasts(now_samples, self._settings.max_press_ms):
            return self._cut(now_samples)
        if self._turn.open:
            return self._split(now_samples)
        long_enough = now_samples - self._started_samples >= self._settings.min_press_ms * SAMPLES_PER_MS
        return [self._start_utterance(self._started_samples)] if long_enough else []

    def _while_paused(self, now_samples: int, stirring: bool) -> list[Action]:
        if self._lasts(now_samples, self._settings.max_turn_ms):
            return self._cut(now_samples)
        self._turn.silent_samples = 0 if stirring else now_samples - self._settled_samples
        return self._end_if_over()

    def _lasts(self, now_samples: int, limit_ms: int) -> bool:
        return now_samples - self._turn.began_samples >= limit_ms * SAMPLES_PER_MS

    def _split(self, now_samples: int) -> list[Action]:
        if now_samples - self._started_samples < self._settings.max_utterance_ms * SAMPLES_PER_MS:
            return []
        self._started_samples = now_samples
        return [*self._end_utterance(now_samples), self._start_utterance(now_samples)]

    def _cut(self, now_samples: int) -> list[Action]:
        return [act.CutSpeech(), *self._finish(now_samples)]

    def _finish(self, at_samples: int) -> list[Action]:
        self.caller = Caller.DONE
        return self._end_utterance(at_samples) + self._end_if_over()

    def _prepare(self) -> list[Action]:
        turn = self._turn
        if self.caller is not Caller.PAUSED or not turn.final or not turn.text or turn.prepared == turn.text:
            return []
        turn.prepared = turn.text
        return [act.PrepareReply(turn.text)]

    def _end_if_over(self) -> list[Action]:
        turn = self._turn
        paused = self.caller is Caller.PAUSED
        over = self.caller is Caller.DONE or (paused and self._endpointing.is_over(turn.silent_samples))
        if not (over and turn.final) or self._agent is not Agent.LISTENING:
            return []
        self.reset()
        if turn.said:
            return [act.EndTurn(turn.said, turn.ended_samples)]
        return [act.DropUtterance(), *self._take_up()]

    def _take_up(self) -> list[Action]:
        """Let speech that had to wait happen now."""
        if self._waiting is None or self._must_wait:
            return []
        burst, self._waiting = self._waiting, None
        actions = self.speech_started(burst.since_samples)
        if burst.until_samples is None:
            return actions
        judged = self._while_speaking(burst.until_samples, burst.until_samples)
        return actions + judged + self.speech_ended(burst.until_samples)
