"""Who has the floor: a state machine over counted samples. No clock, no timer, no await.

Theory of operation. The caller is *silent*, *speaking*, *paused* (silent inside a turn that is not over yet),
*pressing* the talk button, or *done* (nothing more belongs to the turn, but its last words are still being transcribed
or the agent must be let finish); the agent is *listening*, *thinking* (its turn, nothing audible yet) or *speaking*.

    caller    agent      what happens                     next     actions
    --------  ---------  -------------------------------  -------  ----------------------------------------
    silent    listening  speech starts                    speaking StartUtterance
    silent    thinking,  a sound that may become speech   silent   DuckReply; UnduckReply if it does not
              speaking
    silent    thinking,  speech starts                    speaking HoldReply, StartUtterance  (contested)
              speaking
    any       (contested) words that take the floor       any      Interrupt                  (floor taken)
    speaking  (contested) barge_in_ms without words       speaking Interrupt                  (floor taken)
    speaking  (contested) speech ends                     paused   EndUtterance
    paused    (contested) words final, and took nothing   silent   DropUtterance, ResumeReply
    paused,   (contested) verdict_ms without words        same     ResumeReply  (and no HoldReply until they came)
    speaking
    speaking  any        max_utterance_ms reached         speaking EndUtterance, StartUtterance
    speaking  any        silent for settle_ms             speaking SettleWords
    speaking  (floor)    silent for judge_ms              speaking Judge  (again if the words change)
    speaking  listening  speech ends                      paused   EndUtterance, Judge
    speaking, listening  all words known, and the silence same     PrepareReply (held; once per wording)
    paused               soon long enough
    paused    listening  speech starts                    speaking StartUtterance  (same turn)
    any       listening  words change after a preparation -        RevokeReply
    paused    listening  silence long enough, words final silent   EndTurn; DropUtterance if nobody said anything
    speaking, listening  max_turn_ms reached              done     CutSpeech, EndUtterance
    paused
    (contested)          the reply ends by itself         speaking -  (an ordinary utterance from now on)
    any       any        talk button pressed              pressing Interrupt  (the turn, if there is one, goes on)
    pressing  any        min_press_ms of it               pressing StartUtterance  (unless one is open)
    pressing  any        max_utterance_ms reached         pressing EndUtterance, StartUtterance
    pressing  any        released                         done     EndUtterance  (a slip of the finger: as before)
    pressing  any        max_press_ms reached             done     CutSpeech, EndUtterance
    done      listening  words final                      silent   EndTurn; DropUtterance if nobody said anything
    done      any        speech starts                    done     -  (waits until the turn has ended)
    any       any        text typed                       silent   Interrupt, CutSpeech, DropUtterance, EndTurn

"Long enough" is ``endpoint_ms`` of audio, or what `endpointing` makes of an end-of-turn engine's judgment (Judge);
"soon" is what an answer takes to become sound. Words may arrive after that silence; the turn then ends the moment they
do, or are judged. What takes the floor says `barge_in`.

An agent that may not be interrupted is let finish. Speech over it waits, and is taken up if it still goes on then. What
is said with the button pressed, and what is typed, is *done* meanwhile and answered as soon as the agent listens.
"""

from __future__ import annotations

from . import turn_actions as act
from .audio import SAMPLES_PER_MS
from .barge_in import BargeIn
from .endpointing import Asks, Endpointing
from .floor import Agent, Caller
from .running_turn import Burst, Press, RunningTurn
from .turn_actions import Action
from .turn_settings import TurnSettings
from .utterance_bounds import UtteranceBounds


class TurnTaking:
    """Facts in, actions out, in order. The one who calls carries the actions out before the next fact."""

    def __init__(self, settings: TurnSettings, asks: Asks = Asks.NEVER) -> None:
        self._settings = settings
        self.endpointing = Endpointing(settings, asks)
        self.caller = Caller.SILENT
        self.speaker = Agent.LISTENING
        self._barge_in = BargeIn(settings)
        self._bounds = UtteranceBounds(settings)
        self._turn = RunningTurn()
        self._waiting: Burst | None = None

    def speech_started(self, at_samples: int) -> list[Action]:
        """The detector says the caller began to speak."""
        if self.caller is Caller.PRESSING:
            return []
        if self.caller is Caller.DONE or self._must_wait:
            self._waiting = Burst(self._waiting.since_samples if self._waiting else at_samples)
            return []
        if self.caller is Caller.SILENT:
            self._turn.began_samples = at_samples
        self.caller = Caller.SPEAKING
        self._bounds.started_samples = at_samples
        self._go_on()
        held = [] if self.speaker is Agent.LISTENING else self._barge_in.begin(at_samples)
        return [*held, self._bounds.start(self._turn, at_samples)]

    def speech_ended(self, at_samples: int) -> list[Action]:
        """The detector says the caller fell silent after ``at_samples``."""
        if self._waiting is not None:
            since = self._waiting.since_samples
            self._waiting = Burst(since, at_samples) if self._settings.allow_interruptions else None
        if self.caller is not Caller.SPEAKING:
            return []
        self.caller = Caller.PAUSED
        ended = self._bounds.end(self._turn, at_samples, settled=self._turn.asked)
        judged = self._drop_if_nothing() if self._barge_in.contested else self.endpointing.ask(self._turn.text)
        return ended + judged

    def pressed(self, at_samples: int) -> list[Action]:
        """The caller holds the talk button from here on: theirs is the floor, and no pause ends their turn."""
        if self.caller is Caller.PRESSING:
            return []
        self._turn.press = Press(at_samples, self.caller, self._waiting)
        if self.caller is Caller.SILENT:
            self._turn.began_samples = at_samples
        if not self._turn.open:
            self._bounds.started_samples = self._waiting.since_samples if self._waiting else at_samples
        self.caller, self._waiting = Caller.PRESSING, None
        self._barge_in.end()
        return [] if self.speaker is Agent.LISTENING or self._must_wait else [act.Interrupt()]

    def slipped(self, at_samples: int) -> bool:
        """Tell whether the button, released here, was down for too short a time to matter to what the caller says."""
        press = self._turn.press
        return press is not None and press.over_speech and not press.lasts(at_samples, self._settings.min_press_ms)

    def released(self, at_samples: int) -> list[Action]:
        """The caller let go of the talk button: their turn is over, but for a slip of the finger while they speak."""
        press = self._turn.press
        if press is None or not self.slipped(at_samples):
            return [] if press is None else self._finish(at_samples)
        self._turn.press, self.caller, self._waiting = None, press.before, press.waiting
        return self._end_if_over()

    def typed(self, text: str, at_samples: int) -> list[Action]:
        """The caller typed a whole turn: it replaces the one being spoken, or joins the one that waits."""
        if not self._must_wait:
            cut = [act.CutSpeech()] if self.caller in (Caller.SPEAKING, Caller.PRESSING) else []
            self.reset()
            self._waiting, self._bounds.settled_samples = None, at_samples
            return [act.Interrupt(), *cut, act.DropUtterance(), act.EndTurn(text, None)]
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
            case Caller.SILENT if self.speaker is not Agent.LISTENING and not self._must_wait:
                return self._barge_in.stir(stirring and last_speech_samples == now_samples)
        return []

    def words(self, text: str, *, final: bool, settled: bool = False, backchannel: bool = False) -> list[Action]:
        """The turn's words so far; ``final`` once every utterance of it is transcribed.

        ``settled``: they answer the last SettleWords. ``backchannel``: they do not take the floor from the agent.
        """
        turn = self._turn
        turn.text, turn.final, turn.settled = text, final, settled and turn.asked
        if not self._barge_in.contested:
            return self._reworded()
        if text and not backchannel:
            return self._take_floor() + self._reworded()
        return self._drop_if_nothing()

    def judged(self, probability: float | None) -> list[Action]:
        """The answer to the last Judge: how probable it is that the turn is over; None if there was none in time."""
        self.endpointing.answered(probability)
        return self._end_if_over() or self._prepare()

    def agent(self, state: Agent) -> list[Action]:
        """The agent's state changed."""
        self.speaker = state
        judge: list[Action] = []
        if state is Agent.LISTENING:
            judge = self._judge_pause() if self._barge_in.contested else []
            self._barge_in.end()
        return judge + (self._end_if_over() if self.caller is Caller.DONE else self._take_up())

    def deafened(self, at_samples: int) -> list[Action]:
        """Nothing more will be heard: what is being said is lost, but what was said to the end is still answered."""
        self._waiting = None
        if self.caller is Caller.DONE:
            return []
        if self.caller is Caller.PRESSING or (self.caller is Caller.PAUSED and not self._barge_in.contested):
            return self._finish(at_samples)
        self.reset()
        return [act.DropUtterance(), act.RevokeReply(), act.ResumeReply(), act.UnduckReply()]

    def reset(self) -> None:
        """Forget the running turn (it was answered, typed over, or nothing)."""
        self.caller = Caller.SILENT
        self._barge_in.end()
        self._turn = RunningTurn()
        self.endpointing.forget()

    @property
    def _must_wait(self) -> bool:
        return self.speaker is not Agent.LISTENING and not self._settings.allow_interruptions

    def _go_on(self) -> None:
        self._turn.go_on()
        self.endpointing.forget()

    def _while_speaking(self, now_samples: int, last_speech_samples: int) -> list[Action]:
        if not self._barge_in.contested and self._turn.lasts(now_samples, self._settings.max_turn_ms):
            return self._cut(now_samples)
        self._turn.silent_samples = now_samples - last_speech_samples
        if self._turn.silent_samples >= self._settings.settle_ms * SAMPLES_PER_MS:
            return self._fall_silent() + self._bounds.split(self._turn, now_samples)
        self._go_on()
        began_samples = self._turn.began_samples if self._turn.text else self._bounds.started_samples
        taken = self._barge_in.by_length(last_speech_samples - began_samples, self._turn.text)
        waited = self._take_floor() if taken else self._barge_in.wait(now_samples, 0)
        return waited + self._bounds.split(self._turn, now_samples)

    def _fall_silent(self) -> list[Action]:
        """Work behind a silence that may become the turn's end."""
        actions: list[Action] = [] if self._turn.asked else [act.SettleWords()]
        self._turn.asked = True
        if self._barge_in.contested:
            return actions
        if self._turn.silent_samples >= self._settings.judge_ms * SAMPLES_PER_MS:
            actions += self.endpointing.ask(self._turn.text)
        return actions + self._prepare()

    def _take_floor(self) -> list[Action]:
        self._barge_in.end()
        self.speaker = Agent.LISTENING
        return [act.Interrupt(), *self._judge_pause()]

    def _judge_pause(self) -> list[Action]:
        """A pause in speech over the agent is one to be judged, once the agent is silent."""
        return self.endpointing.ask(self._turn.text) if self.caller is Caller.PAUSED else []

    def _drop_if_nothing(self) -> list[Action]:
        """What was said over the agent, if all of it is known, did not take the floor."""
        if self.caller is not Caller.PAUSED or not self._turn.final:
            return []
        self.reset()
        return [act.DropUtterance(), act.ResumeReply()]

    def _reworded(self) -> list[Action]:
        turn = self._turn
        asked = turn.revoke() + self.endpointing.reworded(turn.text, settled=turn.settled)
        return asked + (self._end_if_over() or self._prepare())

    def _while_pressing(self, now_samples: int) -> list[Action]:
        press = self._turn.press
        if press is None or press.lasts(now_samples, self._settings.max_press_ms):
            return self._cut(now_samples)
        if self._turn.open:
            return self._bounds.split(self._turn, now_samples)
        begins = press.lasts(now_samples, self._settings.min_press_ms)
        return [self._bounds.start(self._turn, self._bounds.started_samples)] if begins else []

    def _while_paused(self, now_samples: int, stirring: bool) -> list[Action]:
        self._turn.silent_samples, self._turn.stirring = now_samples - self._bounds.settled_samples, stirring
        if self._barge_in.contested:
            return self._barge_in.wait(now_samples, self._turn.silent_samples)
        if self._turn.lasts(now_samples, self._settings.max_turn_ms):
            return self._cut(now_samples)
        return self._end_if_over() or self._prepare()

    def _cut(self, now_samples: int) -> list[Action]:
        return [act.CutSpeech(), *self._finish(now_samples)]

    def _finish(self, at_samples: int) -> list[Action]:
        self.caller, self._turn.press = Caller.DONE, None
        return self._bounds.end(self._turn, at_samples) + self._end_if_over()

    def _prepare(self) -> list[Action]:
        turn = self._turn
        silent = self.caller is Caller.PAUSED or (self.caller is Caller.SPEAKING and turn.asked)
        return turn.prepare() if silent and self.endpointing.is_soon_over(turn.silent_samples) else []

    def _end_if_over(self) -> list[Action]:
        turn = self._turn
        paused = self.caller is Caller.PAUSED and not turn.stirring
        over = self.caller is Caller.DONE or (paused and self.endpointing.is_over(turn.silent_samples))
        if not (over and turn.final) or self.speaker is not Agent.LISTENING:
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
