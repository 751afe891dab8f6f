"""Speeches whose clauses come in requests of their own: kept between two requests of one context, bounded in time and
number.

A speech is lent to one request at a time. It is kept only when that request was answered to its end; a request that
was cut off or failed ends it. Whoever comes too late, or while another request has it, gets a new one: prosody begins
anew, and nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.reply_speech import Speech

KEPT_S = 5.0
"""For the next clause of a language model that thinks; an engine's own context may be over before."""
KEPT = 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    speech: Speech
    expiry: asyncio.TimerHandle


class SpeechContexts:
    """Open speeches, by whatever names a context and all that its requests must have in common."""

    def __init__(self, kept_s: float = KEPT_S, kept: int = KEPT) -> None:
        """Keep each for ``kept_s``, and at most ``kept`` of them; what was used longest ago goes first."""
        self._kept_s = kept_s
        self._limit = kept
        self._kept: dict[Hashable, _Kept] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    @asynccontextmanager
    async def lend(self, context: Hashable, begin: Callable[[], Speech]) -> AsyncIterator[Speech]:
        """Lend the speech of a context for one request; ``begin`` makes one where there is none."""
        kept = self._kept.pop(context, None)
        if kept is not None:
            kept.expiry.cancel()
        speech = kept.speech if kept is not None else begin()
        try:
            yield speech
        except BaseException:
            await speech.aclose()
            raise
        self._keep(context, speech)

    async def aclose(self) -> None:
        """Close all, and from now on those that are lent when they come back. Idempotent."""
        self._closed = True
        for context in list(self._kept):
            self._drop(context)
        if self._closing:
            await asyncio.wait(self._closing)

    def _keep(self, context: Hashable, speech: Speech) -> None:
        self._drop(context)  # of another request of this context, at the same time
        expiry = asyncio.get_running_loop().call_later(self._kept_s, self._drop, context)
        self._kept[context] = _Kept(speech, expiry)
        while self._kept and (self._closed or len(self._kept) > self._limit):
            self._drop(next(iter(self._kept)))

    def _drop(self, context: Hashable) -> None:
        kept = self._kept.pop(context, None)
        if kept is not None:
            kept.expiry.cancel()
            task = asyncio.create_task(kept.speech.aclose(), name="close a speech")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
