"""Sentences spoken together: one step is one more token for each of them, and sound where enough have come.

Everything here runs in one worker thread, but for `Speech.open` and the fields that a `Sentence` shows.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from pipeline.audio import Pcm, to_int16
from pipeline.errors import EngineError

from ._xtts_gpt import Gpt, Sampling
from ._xtts_model import Speaker
from ._xtts_vocoder import Vocoding

log = logging.getLogger(__name__)

CHUNKS: Final = (4, 1, 2, 3, 5, 8, 12, 18, 27, 40)
"""Tokens (46 ms each) a piece of sound is made of, the last for good.

The first three only fill the vocoder's way, so that the first piece is 24 ms long: the next must come soon after it.
"""

PROMPT_TOKENS: Final = 1_024
"""Of sentences that begin together, read at once; the others wait meanwhile."""
TOKENS_AROUND: Final = 35
"""A voice has 32, a text its two ends, speech its start."""


def chunks(sizes: Sequence[int] = CHUNKS) -> Iterator[int]:
    """Yield how many tokens each piece is made of; the last size again and again."""
    size = 1
    for size in sizes:
        yield size
    while True:
        yield size


@dataclass(slots=True, eq=False)
class Sentence:
    """One text in one voice, at most ``Gpt.max_tokens`` long.

    ``pieces`` are its sound so far and the reader's to take; ``ended`` says that no more will come, ``error`` why, and
    a reader that sets ``closed`` gets nothing from the next step on. ``sizes`` are the pieces' tokens.
    """

    text: Sequence[int]
    speaker: Speaker
    speed: float = 1.0
    seed: int | None = None
    sizes: Sequence[int] = CHUNKS
    pieces: deque[Pcm] = field(default_factory=deque)
    tokens: list[int] = field(default_factory=list)
    closed: bool = False
    ended: bool = False
    error: EngineError | None = None

    def end(self, error: EngineError | None = None) -> None:
        """No more will come."""
        self.error = error
        self.ended = True


class _Row:
    """A sentence in the batch. ``latents`` wait to be vocoded; ``over`` says that no more will come."""

    def __init__(self, sentence: Sentence) -> None:
        self.sentence = sentence
        self.chance = random.Random(sentence.seed)
        self.latents: list[Tensor] = []
        self.over = False

    @property
    def heard(self) -> bool:
        """Whether somebody listens for more."""
        return not (self.sentence.closed or self.sentence.ended)

    def add(self, token: int, latent: Tensor, last: bool) -> None:
        """Take the latent that led to ``token`` (the one that ends speech, too)."""
        self.sentence.tokens.append(token)
        self.latents.append(latent)
        self.over = last


class _Chorus:
    """Rows that began in the same step with the same speed and sizes: their sound is due together, and made at once.

    With 32 sentences that is one pass through the vocoder in place of 32 short ones, each of a thousand kernels.
    """

    def __init__(self, decoder: Any, rows: Sequence[_Row]) -> None:
        self.rows = rows
        self._vocoding = Vocoding(
            decoder, torch.cat([row.sentence.speaker.embedding for row in rows]), rows[0].sentence.speed
        )
        self._sizes = chunks(rows[0].sentence.sizes)
        self._due = next(self._sizes)

    def sound(self) -> None:
        """Make sound of what is over, and of all if it is time."""
        heard = [row.heard for row in self.rows]
        over = [i for i, row in enumerate(self.rows) if heard[i] and row.over]
        going_on = [i for i, row in enumerate(self.rows) if heard[i] and not row.over]
        if over:
            self._push(over, last=True)
        if going_on and len(self.rows[going_on[0]].latents) >= self._due:
            self._vocoding = self._push(going_on, last=False)
            self.rows = [self.rows[i] for i in going_on]
            self._due = next(self._sizes)

    def _push(self, some: Sequence[int], last: bool) -> Vocoding:
        rows = [self.rows[i] for i in some]
        vocoding = self._vocoding.of(some)
        latents = torch.stack([latent for row in rows for latent in row.latents]).float()
        audio = vocoding.push(latents.view(len(rows), -1, latents.shape[-1]), last)
        for row, sound in zip(rows, audio.cpu().numpy(), strict=True):
            row.latents = []
            if len(sound):
                row.sentence.pieces.append(to_int16(sound))
            if last:
                row.sentence.end()
        return vocoding


def _in_step(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Put together what begins now and is due at the same steps."""
    together: dict[tuple[float, tuple[int, ...]], list[_Row]] = {}
    for row in rows:
        together.setdefault((row.sentence.speed, tuple(row.sentence.sizes)), []).append(row)
    return list(together.values())


class Speech:
    """The batch. At most ``rows`` sentences are spoken at once; further ones wait their turn, the first the first."""

    def __init__(self, gpt: Gpt, decoder: Any, sampling: Sampling, rows: int) -> None:
        """``decoder`` is coqui's ``HifiDecoder``."""
        self.gpt = gpt
        self._decoder = decoder
        self._sampling = sampling
        self._most = rows
        self._rows: list[_Row] = []
        self._said = gpt.said_before()[None][:0]
        """The tokens that each row has said."""
        self._choruses: list[_Chorus] = []
        self._waiting: deque[Sentence] = deque()
        self._joining: list[Sentence] = []

    def open(self, sentence: Sentence) -> None:
        """Speak it from the next step on. From any thread."""
        self._waiting.append(sentence)

    def step(self) -> None:
        """Give every sentence one more token. Never raises: what goes wrong ends the sentences it happened to."""
        try:
            with torch.inference_mode():
                self._leave()
                self._advance()
                self._join()
                self._sound()
        except Exception as error:
            log.exception("tts xtts failed while speaking %d sentences", len(self._rows))
            self._fail(EngineError(f"tts xtts failed: {type(error).__name__}: {str(error)[:200]}; try again"))

    @property
    def speaking(self) -> int:
        """Sentences in the batch."""
        return len(self._rows)

    def _leave(self) -> None:
        for row in reversed(range(len(self._rows))):
            if not self._rows[row].heard:
                self.gpt.end(row)
                self._rows[row] = self._rows[-1]
                self._said[row] = self._said[-1]
                self._rows.pop()
                self._said = self._said[:-1]
        self._choruses = [chorus for chorus in self._choruses if any(row.heard for row in chorus.rows)]

    def _join(self) -> None:
        joined: list[_Row] = []
        while joining := self._next():
            self._joining = joining
            begun = self.gpt.begin([one.speaker.latents for one in joining], [one.text for one in joining])
            rows = [_Row(sentence) for sentence in joining]
            self._rows += rows
            self._said = torch.cat([self._said, self.gpt.said_before().expand(len(rows), -1)])
            self._draw(rows, *begun)
            joined += rows
        self._joining = []
        self._choruses += [_Chorus(self._decoder, rows) for rows in _in_step(joined)]

    def _sound(self) -> None:
        for chorus in self._choruses:
            chorus.sound()

    def _next(self) -> list[Sentence]:
        """Take as many of those that wait as there is room for, and as are read in a step of usual length."""
        taken: list[Sentence] = []
        longest = 0
        while self._waiting and len(self._rows) + len(taken) < self._most:
            longest = max(longest, len(self._waiting[0].text) + TOKENS_AROUND)
            if taken and longest * (len(taken) + 1) > PROMPT_TOKENS:
                break
            sentence = self._waiting.popleft()
            if not sentence.closed:
                taken.append(sentence)
        return taken

    def _advance(self) -> None:
        if self._rows:
            tokens = [row.sentence.tokens for row in self._rows]
            self._draw(self._rows, *self.gpt.step([said[-1] for said in tokens], [len(said) for said in tokens]))

    def _draw(self, rows: Sequence[_Row], latents: Tensor, logits: Tensor) -> None:
        """Draw a token for each of the last ``rows``."""
        chances = [row.chance.random() for row in rows]
        tokens = self._sampling.draw(logits, self._said[-len(rows) :], chances)
        for row, token, latent in zip(rows, tokens, latents, strict=True):
            full = len(row.sentence.tokens) + 1 >= self.gpt.max_tokens
            row.add(token, latent, token == self.gpt.stop_token or full)

    def _fail(self, error: EngineError) -> None:
        """End what is being spoken, and give the memory back that it may have been about."""
        for sentence in [*self._joining, *(row.sentence for row in self._rows)]:
            sentence.end(error)
        self._joining = []
        self._rows.clear()
        self._choruses.clear()
        self._said = self._said[:0]
        self.gpt.clear()
