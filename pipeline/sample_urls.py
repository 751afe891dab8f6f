"""Voice samples by URL: fetched when a call asks for one, and not again for every call."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .errors import Overloaded
from .voices import VoiceSamples

PARAM = "voiceSampleUrl"
MAX_AGE_S = 300.0
"""For so long a URL is taken to hold what it held."""
MAX_URLS = 1_024
MAX_FETCHES = 4
MAX_WAIT_S = 20.0

Fetch = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class _Fetched:
    sha256: str
    until_s: float


class SampleUrls:
    """What was fetched lately, by URL; the sample itself is kept by ``samples``."""

    def __init__(self, samples: VoiceSamples, fetch: Fetch) -> None:
        self._samples = samples
        self._fetch = fetch
        self._fetched: OrderedDict[str, _Fetched] = OrderedDict()
        self._free = asyncio.Semaphore(MAX_FETCHES)

    async def sample(self, url: str) -> str:
        """Return the SHA-256 of the sample at ``url``, fetched and decoded unless that was done lately.

        Raises ProtocolError (param ``voiceSampleUrl``) for what cannot be fetched or is no speech, Overloaded when too
        many are being fetched. Canceling is safe.
        """
        if (known := self._lately(url)) is not None:
            return known
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded("too many voice samples are being fetched: try again later") from None
        try:
            return self._lately(url) or await self._add(url)
        finally:
            self._free.release()

    async def _add(self, url: str) -> str:
        sample = await self._samples.add(await self._fetch(url), param=PARAM, trim=True)
        self._fetched[url] = _Fetched(sample.sha256, asyncio.get_running_loop().time() + MAX_AGE_S)
        if len(self._fetched) > MAX_URLS:
            self._fetched.popitem(last=False)
        return sample.sha256

    def _lately(self, url: str) -> str | None:
        """Forget from the front: the order of fetching is the order of expiry."""
        now_s = asyncio.get_running_loop().time()
        while self._fetched and next(iter(self._fetched.values())).until_s <= now_s:
            self._fetched.popitem(last=False)
        fetched = self._fetched.get(url)
        return fetched.sha256 if fetched is not None else None


async def fetch_sample(url: str) -> bytes:
    """Get what is at a URL."""
    from .fetch import fetch

    return await fetch(url)
