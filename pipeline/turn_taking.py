"""Who has the floor: a state machine over counted samples. No clock, no timer, no await.

Theory of operation. The caller is *silent*, *speaking* or *paused* (silent inside a turn that is not over yet); the
agent is *listening*, *thinking* (its turn, nothing audible yet) or *speaking*.

    caller    agent      what happens                     next     actions
    --------  ---------  -------------------------------  -------  ----------------------------------------
    silent    listening  speech starts                    speaking StartUtterance
    silent    thinking,  speech starts                    speaking HoldReply, StartUtterance  (contested)
              speaking
    speaking  (contested) barge_in_ms of it was speech    speaking Interrupt                  (floor taken)
    speaking  (contested) speech ends before that         silent   DropUtterance, ResumeReply
    speaking  any        max_utterance_ms reached         speaking EndUtterance, StartUtterance
    speaking  listening  speech ends                      paused   EndUtterance
    paused    listening  words final                      paused   PrepareReply (held; once per wording)
    paused    listening  speech starts                    speaking StartUtterance  (same turn)
    any       listening  words change after a preparation -        RevokeReply
    paused    listening  silence long enough, words final silent   EndTurn; DropUtterance if nobody said anything
    (contested)          the reply ends by itself         speaking -  (an ordinary utterance from now on)

"Long enough" is ``endpoint_ms`` of audio, or ``endpoint_max_ms`` where an end-of-turn engine believes that the caller
has not finished. Words may arrive after that silence; the turn then ends the moment they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from .audio import SAMPLES_PER_MS


class Caller(Enum):
    """What the caller is doing."""

    SILENT = auto()
    SPEAKING = auto()
    PAUSED = auto()


class Agent(Enum):
    """What the agent is doing."""

    LISTENING = auto()
    THINKING = auto()
    SPEAKING = auto()


@dataclass(frozen=True, slots=True)
class StartUtterance:
    """Transcribe from this sample on."""

    from_samples: int


@dataclass(frozen=True, slots=True)
class EndUtterance:
    """The utterance's audio is complete."""


@dataclass(frozen=True, slots=True)
class DropUtterance:
    """It was nothing (a cough, a noise without words): forget it."""


@dataclass(frozen=True, slots=True)
class PrepareReply:
    """Think about an answer to these words, held."""

    text: str


@dataclass(frozen=True, slots=True)
class RevokeReply:
    """The prepared reply answers words that are no longer all."""


@dataclass(frozen=True, slots=True)
class EndTurn:
    """The turn is over: answer these words."""

    text: str


@dataclass(frozen=True, slots=True)
class HoldReply:
    """Pause the agent: the caller may be taking the floor."""


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """The caller did not take the floor: go on."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The caller has the floor."""


Action = (
    StartUtterance
    | EndUtterance
    | DropUtterance
    | PrepareReply
    | RevokeReply
    | EndTurn
    | HoldReply
    | ResumeReply
    | Interrupt
)


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Times in milliseconds of audio."""

    endpoint_ms: int = 400
    endpoint_max_ms: int = 1600
    complete_probability: float = 0.5
    barge_in_ms: int = 250
    preroll_ms: int = 300
    max_utterance_ms: int = 30_000
    allow_interruptions: bool = True


class TurnTaking:
    """Facts in, actions out, in order. The one who calls carries the actions out before the next fact."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self.caller = Caller.SILENT
        self._agent = Agent.LISTENING
        self._contested = False
        self._started_samples = 0
        self._silent_since_samples = 0
        self._words = _Words()
        self._ignored_since_samples: int | None = None

    def speech_started(self, at_samples: int) -> list[Action]:
        """The detector says the caller began to speak."""
        if self._agent is Agent.LISTENING:
            self._begin(at_samples)
            return [self._start_utterance(at_samples)]
        if not self._settings.allow_interruptions:
            self._ignored_since_samples = at_samples
            return []
        self._begin(at_samples)
        self._contested = True
        return [HoldReply(), self._start_utterance(at_samples)]

    def speech_ended(self, at_samples: int) -> list[Action]:
        """The detector says the caller fell silent after ``at_samples``."""
        self._ignored_since_samples = None
        if self.caller is not Caller.SPEAKING:
            return []
        if self._contested:
            self.reset()
            return [DropUtterance(), ResumeReply()]
        self.caller = Caller.PAUSED
        self._silent_since_samples = at_samples
        return [EndUtterance()]

    def received(self, now_samples: int, last_speech_samples: int, *, stirring: bool = False) -> list[Action]:
        """So many samples have been received, and speech last sounded there.

        ``stirring``: the detector suspects speech right now, so a turn must not end in this very moment.
        """
        if self.caller is Caller.SPEAKING:
            return self._while_speaking(now_samples, last_speech_samples)
        if self.caller is Caller.PAUSED and not self._words.over and not stirring:
            self._words.over = now_samples - self._silent_since_samples >= self._endpoint_samples()
            return self._end_if_over()
        return []

    def words(self, text: str, *, final: bool) -> list[Action]:
        """The turn's words so far; ``final`` once every utterance of it is transcribed."""
        words = self._words
        words.text, words.final = text, final
        actions: list[Action] = []
        if words.prepared is not None and text != words.prepared:
            words.prepared = None
            actions.append(RevokeReply())
        if self.caller is Caller.PAUSED and final:
            actions += self._end_if_over() or self._prepare()
        return actions

    def completeness(self, probability: float) -> None:
        """An end-of-turn engine's judgment of the running turn."""
        self._words.complete = probability >= self._settings.complete_probability

    def agent(self, state: Agent) -> list[Action]:
        """The agent's state changed."""
        self._agent = state
        self._contested = self._contested and state is not Agent.LISTENING
        if state is Agent.LISTENING and self._ignored_since_samples is not None:
            since, self._ignored_since_samples = self._ignored_since_samples, None
            return self.speech_started(since)
        return []

    def reset(self) -> None:
        """Forget the running turn (it was answered, typed over, or nothing)."""
        self.caller = Caller.SILENT
        self._contested = False
        self._words = _Words()

    def _begin(self, at_samples: int) -> None:
        self.caller = Caller.SPEAKING
        self._started_samples = at_samples
        self._words.over, self._words.final, self._words.complete = False, False, True

    def _start_utterance(self, at_samples: int) -> StartUtterance:
        # The pre-roll ends where the speech before ended: its last word would be transcribed twice.
        return StartUtterance(max(self._silent_since_samples, at_samples - self._settings.preroll_ms * SAMPLES_PER_MS))

    def _while_speaking(self, now_samples: int, last_speech_samples: int) -> list[Action]:
        spoken_samples = last_speech_samples - self._started_samples
        if self._contested and spoken_samples >= self._settings.barge_in_ms * SAMPLES_PER_MS:
            self._contested = False
            return [Interrupt()]
        if now_samples - self._started_samples >= self._settings.max_utterance_ms * SAMPLES_PER_MS:
            self._started_samples = now_samples
            return [EndUtterance(), StartUtterance(now_samples)]
        return []

    def _endpoint_samples(self) -> int:
        s = self._settings
        return (s.endpoint_ms if self._words.complete else s.endpoint_max_ms) * SAMPLES_PER_MS

    def _prepare(self) -> list[Action]:
        if not self._words.text or self._words.prepared == self._words.text:
            return []
        self._words.prepared = self._words.text
        return [PrepareReply(self._words.text)]

    def _end_if_over(self) -> list[Action]:
        if not (self._words.over and self._words.final):
            return []
        text = self._words.text
        self.reset()
        return [EndTurn(text)] if text else [DropUtterance()]


@dataclass(slots=True)
class _Words:
    """What is known of the running turn's words."""

    text: str = ""
    final: bool = False
    complete: bool = True
    over: bool = False
    prepared: str | None = None
