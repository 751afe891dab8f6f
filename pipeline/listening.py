"""The caller's half of a session: their audio becomes speech events and the running turn's words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from . import turn_actions as act
from .audio import SPEECH_RATE_HZ, Pcm
from .echo import Echo
from .endpointing import Asks
from .engines import EndOfTurn, Engines, hears_pauses
from .errors import EngineError
from .events import SpeechEnded, SpeechStarted
from .reply import Patience
from .speech import Ear, SpeechSettings
from .tasks import cancel_and_wait, canceled_by_its_owner_alone
from .text import has_words
from .utterance import Utterance

log = logging.getLogger(__name__)


def asks(turn: EndOfTurn | None) -> Asks:
    """Return when an end-of-turn engine is to be asked."""
    if turn is None:
        return Asks.NEVER
    return Asks.AGAIN if getattr(turn, "reads_words", True) else Asks.ONCE


@dataclass(frozen=True, slots=True)
class ListeningListener:
    """What listening tells, synchronously."""

    words: Callable[[str, bool, bool], None]
    """The turn's words so far, whether every utterance of it is final, and whether they answer the last SettleWords."""
    judged: Callable[[float | None], None]
    """The answer of the end-of-turn engine, None if there was none in time: one for each question, but for those that
    another one followed or that were forgotten."""
    failed: Callable[[Literal["stt", "turn"], str], None]
    """A stage failed; the turn goes on with the words there are."""


class Listening:
    """Own the ear and the utterances of the running turn."""

    def __init__(
        self,
        engines: Engines,
        settings: SpeechSettings,
        language: str | None,
        patience: Patience,
        listener: ListeningListener,
        prompt: Callable[[], str] = lambda: "",
        echo: Echo | None = None,
    ) -> None:
        """``prompt`` returns words that the caller is likely to say next; ``echo`` knows what the agent says."""
        self.ear = Ear(engines.vad.open(), settings, echo)
        self.late_judgments = 0
        self._engines = engines
        self._language = language
        self._patience = patience
        self._listener = listener
        self._prompt = prompt
        self._utterances: list[Utterance] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._judging: asyncio.Task[None] | None = None
        self._began_samples = 0
        self._open: Utterance | None = None
        self._heard_s = 0.0

    @property
    def language(self) -> str | None:
        """The language of the running turn, where speech-to-text told it."""
        return next((u.transcript.language for u in reversed(self._utterances) if u.transcript.language), None)

    def push(self, pcm: Pcm) -> list[SpeechStarted | SpeechEnded]:
        """Hear more of the caller."""
        self._heard_s = asyncio.get_running_loop().time()
        if self._open is not None:
            self._open.feed(pcm)
        return self.ear.push(pcm)

    def came_in_s(self, at_samples: int) -> float:
        """Return when this sample came in, on the loop's clock."""
        return self._heard_s - (self.ear.heard_samples - at_samples) / SPEECH_RATE_HZ

    def carry_out(self, action: act.ListeningAction) -> None:
        """Do what turn taking asks of listening."""
        match action:
            case act.StartUtterance(from_samples):
                self._start(from_samples)
            case act.SettleWords():
                if self._open is not None:
                    self._open.settle(hears=hears_pauses(self._engines.stt))
            case act.EndUtterance(settled):
                self._end(settled)
            case act.Judge(text):
                self._ask(text)
            case _:
                assert_never(action)

    def _start(self, from_samples: int) -> None:
        """Transcribe a new utterance of this turn, from the sample on (as far back as it is kept)."""
        from_samples = max(from_samples, self.ear.tail.begin_samples)
        utterance = Utterance(from_samples, self._patience.stt_s, self._changed, self._stt_failed)
        utterance.feed(self.ear.tail.since(from_samples))
        self._began_samples = self._began_samples if self._utterances else from_samples
        self._utterances.append(utterance)
        self._open = utterance
        self._own(utterance.run(self._engines.stt, self._language, self._prompt()), "utterance")

    def _end(self, settled: bool) -> None:
        if self._open is not None:
            # One that was asked, and since hears pauses no more, may never answer: it is asked for final words.
            self._open.end(settled=settled and hears_pauses(self._engines.stt))
            self._open = None

    def _ask(self, text: str) -> None:
        """Ask the end-of-turn engine, if there is one, about the words and the sound of the running turn."""
        if self._judging is not None:
            self._judging.cancel()
        if self._engines.turn is not None:
            self._judging = self._own(self._judge(self._engines.turn, text), "end of turn")

    def forget(self) -> None:
        """The turn was answered or was nothing: running work on it is canceled."""
        self._open = None
        for utterance in self._utterances:
            utterance.forget()
        self._utterances.clear()
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End all work and wait for it."""
        self.forget()
        await cancel_and_wait(*self._tasks)

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _words(self) -> str:
        """Join what was said; a recognizer writes a cough as "..." or "♪"."""
        return " ".join(u.transcript.text for u in self._utterances if has_words(u.transcript.text))

    def _changed(self) -> None:
        final = all(u.transcript.final for u in self._utterances)
        self._listener.words(self._words(), final, all(u.settled for u in self._utterances))

    def _stt_failed(self, message: str) -> None:
        self._listener.failed("stt", message)

    async def _judge(self, turn: EndOfTurn, text: str) -> None:
        probability = None
        try:
            async with asyncio.timeout(self._patience.turn_s):
                sound = self.ear.tail.since(self._began_samples)
                with canceled_by_its_owner_alone():
                    probability = _checked(await turn.is_complete(sound, text, self.language or self._language))
        except TimeoutError:
            self.late_judgments += 1
            if self.late_judgments == 1:  # a slow machine is as slow the next time
                self._listener.failed("turn", f"no judgment within {self._patience.turn_s:g} s")
        except EngineError as error:
            self._listener.failed("turn", str(error))
        except Exception as error:
            log.exception("end-of-turn engine raised")
            self._listener.failed("turn", f"{type(error).__name__}: {error}")
        self._listener.judged(probability)


def _checked(probability: float) -> float:
    if not 0.0 <= probability <= 1.0:
        raise EngineError(f"judged {probability}, which is no probability")
    return float(probability)
