"""Voice samples by URL: fetched when a call asks for one, not again for every call, and removed when calls are over."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from .errors import EngineError, Overloaded
from .voices import VoiceSamples

log = logging.getLogger(__name__)

PARAM = "voiceSampleUrl"
FRESH_S = 300.0
"""For so long a URL is taken to hold what it held."""
MAX_URLS = 1_024
MAX_FETCHES = 4
MAX_WAIT_S = 20.0

TEMPORARY_S = 24 * 3600.0
"""How long a sample is kept that is no voice's: longer than any call lasts."""
SWEEP_EVERY_S = 3600.0

Fetch = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class _Fetched:
    sha256: str
    until_s: float


class SampleUrls:
    """What was fetched lately, by URL; the samples themselves are kept by ``samples``."""

    def __init__(self, samples: VoiceSamples, fetch: Fetch, kept: Callable[[], Awaitable[Collection[str]]]) -> None:
        """``kept`` tells the samples that are voices', by SHA-256."""
        self._samples = samples
        self._fetch = fetch
        self._kept = kept
        self._fetched: OrderedDict[str, _Fetched] = OrderedDict()
        self._free = asyncio.Semaphore(MAX_FETCHES)
        self._sweep_at_s = 0.0

    async def sample(self, url: str) -> str:
        """Return the SHA-256 of the sample at ``url``, fetched and decoded unless that was done lately.

        Raises ProtocolError (param ``voiceSampleUrl``) for what cannot be fetched or is no speech, Overloaded when too
        many are being fetched or kept. Canceling is safe.
        """
        if (known := await self._lately(url)) is not None:
            return known
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded("too many voice samples are being fetched: try again later") from None
        try:
            return await self._lately(url) or await self._add(url)
        finally:
            self._free.release()

    async def _add(self, url: str) -> str:
        await self._sweep()
        sample = await self._samples.add(await self._fetch(url), param=PARAM, trim=True)
        self._fetched[url] = _Fetched(sample.sha256, asyncio.get_running_loop().time() + FRESH_S)
        self._fetched.move_to_end(url)
        if len(self._fetched) > MAX_URLS:
            self._fetched.popitem(last=False)
        return sample.sha256

    async def _sweep(self) -> None:
        """Remove what is no voice's and no running call's, now and then. Failing is no caller's concern."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._sweep_at_s:
            return
        self._sweep_at_s = now_s + SWEEP_EVERY_S
        try:
            removed = await self._samples.sweep(await self._kept(), TEMPORARY_S)
        except EngineError as error:
            log.warning("temporary voice samples stay: %s", error)
        else:
            log.debug("%d temporary voice samples removed", removed)

    async def _lately(self, url: str) -> str | None:
        """Forget from the front: the order of fetching is the order of expiry.

        The sample may be gone with the last voice that had it, which another process may have removed.
        """
        now_s = asyncio.get_running_loop().time()
        while self._fetched and next(iter(self._fetched.values())).until_s <= now_s:
            self._fetched.popitem(last=False)
        fetched = self._fetched.get(url)
        return fetched.sha256 if fetched is not None and await self._samples.retain(fetched.sha256) else None
