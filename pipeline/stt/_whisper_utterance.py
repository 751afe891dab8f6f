"""One utterance on its way through Whisper: heard again and again while it grows, in pieces of at most 30 s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from pipeline.audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, AudioFrame, Pcm
from pipeline.events import Transcript
from pipeline.tasks import cancel_and_wait, closing

from ._batches import Batches
from ._growing import Growing, quietest
from ._whisper import Heard, Speech
from ._whisper_settings import WINDOW_MAX_S

PIECE_SAMPLES = WINDOW_MAX_S * SPEECH_RATE_HZ
CUT_FROM_SAMPLES = PIECE_SAMPLES - 8 * SPEECH_RATE_HZ
"""A longer utterance is cut at its quietest moment from here on."""

PIECES_WAITING = 4
"""So many pieces may wait to be decoded; no more is read meanwhile."""

LEAST_SAMPLES = SPEECH_RATE_HZ // 10
"""In less than that nobody says anything."""


class WhisperUtterance:
    """``transcripts`` once. Final words are asked of ``finals``, all others of ``partials``."""

    def __init__(
        self,
        finals: Batches[Speech, Heard],
        partials: Batches[Speech, Heard],
        partial_ms: int,
        language: str | None,
        prompt: str = "",
    ) -> None:
        self._finals = finals
        self._partials = partials
        self._step_samples = partial_ms * SAMPLES_PER_MS
        self._language = language
        self._prompt = prompt
        self._audio = Growing()
        self._pieces: list[asyncio.Future[Heard]] = []

    async def transcripts(self, frames: AsyncIterator[AudioFrame]) -> AsyncIterator[Transcript]:
        """Yield the words so far where they changed, those of each pause, and then the final ones."""
        holding = asyncio.create_task(self._audio.hold(frames), name="hold utterance")
        try:
            text = ""
            async with closing(self._while_it_grows()) as growing:
                async for heard in growing:
                    if heard.pause_samples is not None or (heard.text and heard.text != text):
                        text = heard.text
                        yield heard
            await holding  # raises what the frames raised
            yield self._joined(await self._ask_all(), final=True)
        finally:
            await cancel_and_wait(holding)
            for piece in self._pieces:
                piece.cancel()

    async def _while_it_grows(self) -> AsyncIterator[Transcript]:
        """Yield what was said so far, at pauses and every step of new audio; rest for as long as a look took."""
        loop = asyncio.get_running_loop()
        wait_samples = self._step_samples or PIECE_SAMPLES
        while await self._audio.reaches(min(PIECE_SAMPLES, wait_samples)):
            if self._audio.samples >= PIECE_SAMPLES:
                await self._cut()
                wait_samples = self._step_samples or PIECE_SAMPLES
                continue
            if self._audio.ended:
                return
            begin_s, begin_samples = loop.time(), self._audio.samples
            pause_samples = self._audio.take_pause()
            heard = await self._unless_stopped(self._look() if pause_samples is None else self._ask_all())
            took_samples = int((loop.time() - begin_s) * SPEECH_RATE_HZ)
            wait_samples = (
                begin_samples + max(self._step_samples, 2 * took_samples) if self._step_samples else PIECE_SAMPLES
            )
            if heard is not None:
                yield self._joined(heard, pause_samples=pause_samples)

    async def _look(self) -> list[Heard]:
        """Return what is said so far, as far as it is known at once."""
        settled = [piece.result() for piece in self._pieces if piece.done()]
        return [*settled, await self._ask(self._partials)]

    async def _ask_all(self) -> list[Heard]:
        """Return all of what is said so far, as good as final."""
        last = [self._ask(self._finals)] if self._audio.samples >= LEAST_SAMPLES else []
        try:
            return [await asyncio.shield(asked) for asked in [*self._pieces, *last]]  # the pieces outlive a look
        finally:
            for asked in last:
                asked.cancel()

    async def _unless_stopped(self, look: Coroutine[Any, Any, list[Heard]]) -> list[Heard] | None:
        """Return what ``look`` does; None if a pause or the end comes first: other words are asked for then."""
        looking = asyncio.create_task(look, name="look at utterance")
        self._audio.when_stopped(looking.cancel)
        try:
            await asyncio.wait({looking})
        finally:
            await cancel_and_wait(looking)
        return None if looking.cancelled() else looking.result()

    async def _cut(self) -> None:
        """Ask for the final words of what a window holds."""
        at = quietest(self._audio.all()[:PIECE_SAMPLES], CUT_FROM_SAMPLES)
        self._pieces.append(self._finals.ask(self._speech(self._audio.take(at))))
        if len(self._pieces) >= PIECES_WAITING:
            await asyncio.wait({self._pieces[-PIECES_WAITING]})

    def _ask(self, lane: Batches[Speech, Heard]) -> asyncio.Future[Heard]:
        return lane.ask(self._speech(self._audio.all()))

    def _speech(self, pcm: Pcm) -> Speech:
        return Speech(pcm, self._language, self._prompt)

    def _joined(self, heard: list[Heard], *, final: bool = False, pause_samples: int | None = None) -> Transcript:
        spoken = [piece for piece in heard if piece.text]
        language = spoken[0].language if spoken else self._language
        return Transcript(" ".join(piece.text for piece in spoken), final, language, pause_samples)
