"""One utterance on its way through Whisper: heard again and again while it grows, in pieces of at most 30 s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

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
        """Yield the words so far where they changed, then the final ones."""
        holding = asyncio.create_task(self._audio.hold(frames), name="hold utterance")
        try:
            text = ""
            async with closing(self._while_it_grows()) as growing:
                async for heard in growing:
                    if heard.text and (now := self._joined(heard.text)) != text:
                        text = now
                        yield Transcript(text, False, heard.language)
            await holding  # raises what the frames raised
            yield await self._final()
        finally:
            await cancel_and_wait(holding)
            for piece in self._pieces:
                piece.cancel()

    async def _while_it_grows(self) -> AsyncIterator[Heard]:
        """Yield what the open piece holds so far, every step of new audio, at rest for as long as a look took."""
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
            heard = await self._look()
            took_samples = int((loop.time() - begin_s) * SPEECH_RATE_HZ)
            wait_samples = begin_samples + max(self._step_samples, 2 * took_samples)
            if heard is not None:
                yield heard

    async def _look(self) -> Heard | None:
        """Return what is said so far, None if the utterance ends first: its final words are asked for then."""
        asked = self._partials.ask(self._speech(self._audio.all()))
        self._audio.when_ended(asked.cancel)
        try:
            await asyncio.wait({asked})
        finally:
            asked.cancel()
        return None if asked.cancelled() else asked.result()

    async def _cut(self) -> None:
        """Ask for the final words of what a window holds."""
        at = quietest(self._audio.all()[:PIECE_SAMPLES], CUT_FROM_SAMPLES)
        self._pieces.append(self._finals.ask(self._speech(self._audio.take(at))))
        if len(self._pieces) >= PIECES_WAITING:
            await asyncio.wait({self._pieces[-PIECES_WAITING]})

    async def _final(self) -> Transcript:
        if self._audio.samples >= LEAST_SAMPLES:
            self._pieces.append(self._finals.ask(self._speech(self._audio.all())))
        heard = [await piece for piece in self._pieces]
        text = " ".join(piece.text for piece in heard if piece.text)
        language = next((piece.language for piece in heard if piece.text), self._language)
        return Transcript(text, True, language)

    def _speech(self, pcm: Pcm) -> Speech:
        return Speech(pcm, self._language, self._prompt)

    def _joined(self, text: str) -> str:
        settled = [piece.result().text for piece in self._pieces if piece.done()]
        return " ".join(filter(None, [*settled, text]))
