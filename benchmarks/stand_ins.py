"""The rules that every measured server keeps, and what stands in for its models. Needs numpy only.

Loudness decides who speaks, in windows of 10 ms. Transcription, language model and voice take as long as they are told.
The answer is a tone that is audible from its first sample on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LOUD = 0.03
"""Of full scale: what is louder is speech."""
WINDOW_MS = 10
TONE_HZ = 440
TONE_LEVEL = 0.3
ANSWER_S = 3.5
ANSWER = "This is the answer, and it takes a while to say all of it."
WORDS = "This is what you said."


@dataclass(frozen=True, slots=True)
class Rules:
    """When the caller is heard to speak and to be done, and how long the models take; all in ms."""

    silence_ms: float = 200
    """Silence that ends a turn."""
    speech_ms: float = 64
    """Speech that is not a click any more: it interrupts."""
    transcription_ms: float = 0
    first_token_ms: float = 0
    first_sound_ms: float = 0

    @property
    def models_ms(self) -> float:
        """All models, one after the other."""
        return self.transcription_ms + self.first_token_ms + self.first_sound_ms

    def arguments(self) -> list[str]:
        """Return the rules as a server's command line has them."""
        figures = (self.silence_ms, self.speech_ms, self.transcription_ms, self.first_token_ms, self.first_sound_ms)
        return [f"{figure:g}" for figure in figures]

    @staticmethod
    def of(arguments: Sequence[str]) -> Rules:
        """Read what ``arguments`` wrote. Raise ValueError if it is something else."""
        return Rules(*map(float, arguments))


Became = Literal["speech", "paused", "resumed", "over"]


class Hearing:
    """Sound in, what became known out: 'speech' as it becomes that, 'paused' at its first silence, then 'resumed' if it
    goes on, or 'over' as the silence is long enough. Counts samples.
    """

    def __init__(self, rules: Rules, rate_hz: int) -> None:
        self._rules = rules
        self._window_samples = rate_hz * WINDOW_MS // 1000
        self._rest: NDArray[np.int16] = np.zeros(0, np.int16)
        self._speaking = False
        self._loud_ms = self._quiet_ms = 0

    def push(self, pcm: NDArray[np.int16]) -> Iterator[Became]:
        """Hear more; yield what became known, in order."""
        sound = np.concatenate([self._rest, pcm])
        whole = len(sound) // self._window_samples * self._window_samples
        self._rest = sound[whole:]
        for window in sound[:whole].reshape(-1, self._window_samples):
            yield from self._judge(is_loud(window))

    def _judge(self, loud: bool) -> Iterator[Became]:
        if loud:
            if self._speaking and self._quiet_ms:
                yield "resumed"
            self._quiet_ms = 0
            self._loud_ms += WINDOW_MS
            if not self._speaking and self._loud_ms >= self._rules.speech_ms:
                self._speaking = True
                yield "speech"
            return
        self._loud_ms = 0
        self._quiet_ms += WINDOW_MS
        if self._speaking and self._quiet_ms == WINDOW_MS:
            yield "paused"
        if self._speaking and self._quiet_ms >= self._rules.silence_ms:
            self._speaking = False
            yield "over"


def is_loud(pcm: NDArray[np.int16]) -> bool:
    """Tell whether the peak of these samples is speech."""
    return bool(np.abs(pcm.astype(np.int32)).max(initial=0) > LOUD * 32768)


def tone(rate_hz: int, begin_s: float, seconds: float) -> NDArray[np.int16]:
    """Return this piece of an answer."""
    at_s = begin_s + np.arange(round(seconds * rate_hz)) / rate_hz
    pcm: NDArray[np.int16] = (np.cos(2 * np.pi * TONE_HZ * at_s) * TONE_LEVEL * 32767).astype(np.int16)
    return pcm


def answer(rate_hz: int, seconds: float = ANSWER_S, chunk_s: float = 0.04) -> Iterator[NDArray[np.int16]]:
    """Yield an answer's sound as a streaming voice does."""
    for i in range(round(seconds / chunk_s)):
        yield tone(rate_hz, i * chunk_s, chunk_s)
