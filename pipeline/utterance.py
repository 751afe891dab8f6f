"""One speech burst on its way to words: a bounded queue of audio, one task, a cumulative transcript."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from .audio import SPEECH_RATE_HZ, AudioFrame, Framer, Pcm, silence
from .engines import SpeechToText
from .errors import EngineError
from .events import Transcript
from .tasks import canceled_by_its_owner_alone, closing

log = logging.getLogger(__name__)

FRAME_SAMPLES = SPEECH_RATE_HZ // 50
QUEUE_FRAMES = 4096
"""Frames an engine may fall behind by, about 80 s at 20 ms; more are dropped and counted, and the first is told."""


class Utterance:
    """Feed it audio, read ``text`` and ``final``; ``changed`` is called at each new hypothesis, ``failed`` on failure.

    After ``end()`` the engine has ``timeout_s`` for its final words; what it said so far stands if it fails.
    """

    def __init__(
        self,
        from_samples: int,
        timeout_s: float,
        changed: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.transcript = Transcript("", final=False)
        self.dropped_frames = 0
        self._at_samples = from_samples
        self._timeout_s = timeout_s
        self._changed = changed
        self._failed = failed
        self._audio: asyncio.Queue[AudioFrame | None] = asyncio.Queue(QUEUE_FRAMES)
        self._framer = Framer(FRAME_SAMPLES)
        self._ended = self._taken = False
        self._forgotten = False
        self._pause_samples: int | None = None
        self._answer: Transcript | None = None
        self._nothing_follows = False
        self._deadline: asyncio.Timeout | None = None

    def feed(self, pcm: Pcm) -> None:
        """Add a copy of 16 kHz audio, in pieces of any length; it is queued in frames of 20 ms. Never blocks."""
        for window in self._framer.push(pcm.copy()):
            self._enqueue(window)

    def _enqueue_rest(self) -> None:
        rest = self._framer.flush()
        if len(rest):
            self._enqueue(rest)

    def _enqueue(self, pcm: Pcm) -> None:
        frame = AudioFrame(pcm, SPEECH_RATE_HZ, self._at_samples)
        self._at_samples += len(pcm)
        if self._audio.qsize() >= QUEUE_FRAMES - 1:
            if not self.dropped_frames:
                self._fail(f"the engine is {QUEUE_FRAMES} frames behind; what follows is dropped")
            self.dropped_frames += 1
        else:
            self._audio.put_nowait(frame)

    def settle(self, *, hears: bool = True) -> None:
        """The caller has fallen silent: ask for the words up to here, if the engine ``hears`` pauses now.

        Tell every pause: what was answered to one before it does not stand for what was said since.
        """
        self._pause_samples = self._answer = None
        if not hears:
            return
        self._enqueue_rest()
        if self._audio.qsize() < QUEUE_FRAMES - 1 and not self.dropped_frames:
            self._pause_samples = self._at_samples
            self._audio.put_nowait(AudioFrame(silence(0), SPEECH_RATE_HZ, self._at_samples))

    @property
    def settled(self) -> bool:
        """Whether the words are all of those up to the last pause asked about; a look since may have found others."""
        return self.transcript.final or (self._answer is not None and self.transcript.text == self._answer.text)

    def end(self, *, settled: bool = False) -> None:
        """The audio is complete; final words are due within the time limit.

        ``settled``: there was nothing but silence since the pause asked about; the words up to there are final.
        """
        self._ended = True
        self._enqueue_rest()
        self._nothing_follows = settled and self._pause_samples is not None
        if not self._nothing_follows:
            self._audio.put_nowait(None)
        self._limit_if_running()

    def forget(self) -> None:
        """Tell nothing more, whatever the engine still says or raises."""
        self._forgotten = True

    def _limit_if_running(self) -> None:
        if self._deadline is not None and self._ended:
            left_s = 0.0 if self._complete else self._timeout_s
            self._deadline.reschedule(asyncio.get_running_loop().time() + left_s)

    @property
    def _complete(self) -> bool:
        return self._nothing_follows and self._answer is not None

    async def run(self, stt: SpeechToText, language: str | None, prompt: str = "") -> None:
        """Transcribe until the words are final. Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(None) as self._deadline:
                self._limit_if_running()
                with canceled_by_its_owner_alone():
                    await self._transcribe(stt, language, prompt)
        except TimeoutError:
            if not self._complete:
                self._fail(f"no transcript within {self._timeout_s:g} s of the utterance's end")
        except EngineError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("speech-to-text raised")
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._deadline = None
        said = self._answer if self._nothing_follows and self._answer is not None else self.transcript
        self._update(Transcript(said.text, True, said.language))

    async def _transcribe(self, stt: SpeechToText, language: str | None, prompt: str) -> None:
        async with closing(self._frames()) as frames, closing(stt.transcribe(frames, language, prompt)) as transcripts:
            async for transcript in transcripts:
                if transcript.final and self._taken:
                    self._answer, self._nothing_follows = transcript, True
                elif transcript.pause_samples is not None and transcript.pause_samples == self._pause_samples:
                    self._answer = transcript
                self._update(replace(transcript, final=False))
                if self._complete:
                    break

    def _update(self, transcript: Transcript) -> None:
        if transcript != self.transcript and not self._forgotten:
            self.transcript = transcript
            self._changed()

    def _fail(self, message: str) -> None:
        if not self._forgotten:
            self._failed(message)

    async def _frames(self) -> AsyncIterator[AudioFrame]:
        while (frame := await self._audio.get()) is not None:
            yield frame
        self._taken = True
