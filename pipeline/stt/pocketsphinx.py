"""PocketSphinx: English speech-to-text with the model that ships in its package; no download, no network.

It decodes while the caller speaks, so that the end of an utterance costs milliseconds. Expect a quarter of the words
of free speech to be wrong (docs/engines.md): it is the fallback for a machine without a better engine.

Setting: ``VOCAL_POCKETSPHINX_DECODERS``, how many utterances are decoded at once (90 MB each; further ones wait).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from pipeline.audio import SPEECH_RATE_HZ, AudioFrame
from pipeline.engines import Settings, Usable, number
from pipeline.errors import EngineError, EngineUnavailable, NotOffered
from pipeline.events import Transcript
from pipeline.tasks import closing
from pipeline.threads import EngineThreads, feed_in_thread

from ._pocketsphinx import MISSING, Decoder, package_path

FEED_FRAMES = 512
"""Audio a decoder may fall behind by: 10 s of frames of 20 ms."""


class PocketSphinxSpeechToText:
    """A pool of decoders: one is built at the start, the others when callers first speak at the same time."""

    hears_pauses = True

    def __init__(self, package: Path, decoders: int) -> None:
        self._package = package
        self._idle = [Decoder(package)]
        self._threads = EngineThreads("pocketsphinx", decoders)

    def close(self) -> None:
        """Abandon what is being decoded and join the threads. Idempotent."""
        self._threads.close()
        self._idle.clear()

    @property
    def stalls(self) -> int:
        """How often a decoder fell behind by all that is allowed."""
        return self._threads.stalls

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Yield the words so far, every 100 ms where they changed, and the final ones; lower case, no punctuation.

        At a pause they are what the utterance's end would find, to the word or nearly (docs/engines.md).

        Raises NotOffered for a language other than English, EngineError for audio that is not 16 kHz.
        """
        if language is not None and language.lower().partition("-")[0] != "en":
            raise NotOffered(f"stt pocketsphinx knows English only, not {language!r}")
        decoding = feed_in_thread(self._threads, frames, self._decode, feed_depth=FEED_FRAMES)
        async with closing(decoding) as transcripts:
            async for transcript in transcripts:
                yield transcript

    def _decode(self, frames: Iterator[AudioFrame]) -> Iterator[Transcript]:
        # There are as many threads as decoders may be, and list.pop and list.append are atomic.
        decoder = self._idle.pop() if self._idle else Decoder(self._package)
        decoder.begin()
        try:
            yield from _partials(decoder, frames)
            text = decoder.end()
        except BaseException:
            decoder.abandon()
            raise
        finally:
            self._idle.append(decoder)
        yield Transcript(text, True, "en")


def _partials(decoder: Decoder, frames: Iterator[AudioFrame]) -> Iterator[Transcript]:
    text = ""
    for frame in frames:
        if frame.rate_hz != SPEECH_RATE_HZ:
            raise EngineError(f"stt pocketsphinx hears {SPEECH_RATE_HZ} Hz, not {frame.rate_hz}")
        if not len(frame.pcm):
            text = decoder.pause()
            yield Transcript(text, False, "en", frame.pts)
            continue
        if not decoder.hear(frame.pcm):
            continue
        text, before = decoder.words(), text
        if text != before:
            yield Transcript(text, False, "en")


def describe(settings: Settings) -> Usable:
    """Any model hears better; this one is always there."""
    return Usable(10, "PocketSphinx, English, runs without a model download", None if package_path() else MISSING)


def create(settings: Settings) -> PocketSphinxSpeechToText:
    """Build the first decoder (0.4 s). Raises EngineUnavailable naming what is missing."""
    package = package_path()
    if package is None:
        raise EngineUnavailable(MISSING)
    decoders = number(settings, "VOCAL_POCKETSPHINX_DECODERS", 2.0 * (os.cpu_count() or 1), least=1.0)
    return PocketSphinxSpeechToText(package, int(decoders))
