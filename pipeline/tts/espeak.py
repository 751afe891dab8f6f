"""espeak-ng: a small voice in a hundred languages, first sound within a millisecond, no model and no network.

The library runs in this process (the ``espeakng-loader`` wheel carries it) and streams through a callback. It is
process-global, so all engines and sessions share one thread; a clause takes a few milliseconds.

Voices: a name ("English (America)") or a language ("en-us", "de"), with an optional variant ("en-us+f3").
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import AsyncIterator
from functools import partial

from pipeline.audio import Pcm
from pipeline.engines import Settings, Usable
from pipeline.errors import NotOffered
from pipeline.tasks import closing
from pipeline.threads import EngineThreads, stream_in_thread

from ._espeak import FASTEST, SLOWEST, WORDS_PER_MINUTE, Library, library

PIECE_CHARACTERS = 500
"""Longer texts are spoken in several goes, so that other sessions get theirs in between."""

DEPTH_CHUNKS = 8192
"""More than a piece at the slowest speed: a listener who stalls must not hold up a library that all share."""

PREFERRED = {"en": "en-us"}
"""Languages whose plain name is not the voice most expect."""


class _Shared:
    """The one thread for the one library: started by the first user, joined when the last one leaves."""

    threads: EngineThreads | None = None
    users = 0


class EspeakTextToSpeech:
    """Close it when done with it: the last one joins the thread."""

    def __init__(self, lib: Library) -> None:
        self.rate_hz = lib.rate_hz
        self._library = lib
        self._threads = _Shared.threads = _Shared.threads or EngineThreads("espeak")
        _Shared.users += 1
        self._closed = False

    def close(self) -> None:
        """Stop speaking; join the thread if nobody else uses it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        _Shared.users -= 1
        if not _Shared.users:
            _Shared.threads = None
            self._threads.close()

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield chunks of 60 ms. Speeds beyond 80 to 450 words a minute are brought within.

        Raises NotOffered for an unknown voice, and for a language without one.
        """
        identifier = self._identifier(voice, language)
        words_per_minute = max(SLOWEST, min(FASTEST, round(WORDS_PER_MINUTE * speed)))
        for piece in textwrap.wrap(clause.replace("\0", " "), PIECE_CHARACTERS):
            work = partial(self._library.speak, piece, identifier, words_per_minute)
            async with closing(stream_in_thread(self._threads, work, depth=DEPTH_CHUNKS)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _identifier(self, voice: str | None, language: str) -> str:
        if voice is not None:
            found = self._library.find(voice)
            if found is None:
                raise NotOffered(f"tts espeak has no voice {voice!r}; name one like 'en-us', 'de' or 'en-gb+f3'")
            return found
        spoken = language.lower()
        candidates = (PREFERRED.get(spoken, spoken), spoken.partition("-")[0])
        for candidate in candidates:
            if (found := self._library.find(candidate)) is not None:
                return found
        raise NotOffered(f"tts espeak has no voice for the language {language!r}")


def describe(settings: Settings) -> Usable:
    """Understandable and immediate; any neural voice sounds better."""
    missing = "pip install espeakng-loader" if importlib.util.find_spec("espeakng_loader") is None else None
    return Usable(10, "espeak-ng, a small synthetic voice inside this process", missing)


def create(settings: Settings) -> EspeakTextToSpeech:
    """Set the library up. Raises EngineUnavailable naming what is missing."""
    return EspeakTextToSpeech(library())
