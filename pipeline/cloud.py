"""What the vendors' engines share: what they need, one pool of connections, and errors in a user's words.

An error has a vendor's status and code in it, never the vendor's own text: that may quote the request or the key.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from .audio import Pcm
from .engines import Settings
from .errors import EngineError, EngineUnavailable, NotOffered
from .remote_errors import Dropped

if TYPE_CHECKING:
    from .cloud_transport import WarmPool

INSTALL = "pip install vocal-node[cloud]"
CONNECT_S = 5.0
KEEP_ALIVE_S = 120.0
"""Longer than a caller's turn, so that the next reply finds a warm connection; httpx would drop it after 5 s."""

CONNECTIONS = 100
PUT_OFF = ("httpcore._backends.anyio", "anyio._backends._asyncio")
"""What httpx imports with its first request, on the event loop, for 40 ms."""

CODE = re.compile(r"[a-z0-9_]{1,64}")
VOICE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
NO_VOICE = ("voice_not_found", "invalid_uid", "invalid_voice_id")
NO_LANGUAGE = ("language_not_supported", "unsupported_language", "invalid_language")
SECONDS = re.compile(r"\d{1,6}(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Vendor:
    """Who is asked, and the names of the settings a user can change when it goes wrong.

    ``meanings`` are codes that say more than the status they come with, by the status that says it.
    """

    engine: str
    name: str
    key: str
    url: str
    default_url: str
    model: str
    console: str
    packages: tuple[str, ...]
    meanings: Mapping[str, int]

    def lacks(self, settings: Settings) -> str | None:
        """Return the one thing that is missing, None if nothing is. Imports nothing, asks no network."""
        if not settings.get(self.key, "").strip():
            return self.key
        return INSTALL if any(importlib.util.find_spec(package) is None for package in self.packages) else None

    def access(self, settings: Settings) -> tuple[str, str]:
        """Return the key and the base URL. Raises EngineUnavailable for what is missing or cannot be either."""
        if (missing := self.lacks(settings)) is not None:
            raise EngineUnavailable(missing)
        key = settings[self.key].strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise EngineUnavailable(f"a usable {self.key}: this one has characters that no key has")
        url = settings.get(self.url, "").strip() or self.default_url
        if not re.match(r"https?://[^/\s]+", url):
            raise EngineUnavailable(f"a usable {self.url}: it must begin with https:// or http://")
        return key, url.rstrip("/")

    def error(self, words: str) -> EngineError:
        """Return an error of this vendor's engine."""
        return EngineError(f"{self.engine}: {words}")

    def refusal(
        self, status: int, code: str = "", retry_after: str | None = None, *, model: str, voice: str = ""
    ) -> EngineError:
        """Return what a status and a code mean for who asked for this model and voice."""
        shown = f"{status}, {code}" if code else f"{status}"
        if code in NO_VOICE or (code in NO_LANGUAGE and status < 500):
            lacks = f"the voice {voice!r}" if code in NO_VOICE else f"this language for {model}"
            return NotOffered(f"{self.engine}: {self.name} does not have {lacks} ({shown}); see {self.console}")
        match self.meanings.get(code, status):
            case 401:
                return self.error(f"{self.name} does not take the key in {self.key} ({shown}); see {self.console}")
            case 402:
                words = f"the account at {self.name} has no credit left, or its plan lacks this"
                return self.error(f"{words} ({shown}); see {self.console}")
            case 403:
                return self.error(f"the key in {self.key} may not be used for this ({shown}); see {self.console}")
            case 404 if code:
                return self.error(f"{self.name} does not have the model {model!r} ({shown}); see {self.model}")
            case 404:
                return self.error(
                    f"{self.name} knows nothing by that name ({shown}); check {self.model} and {self.url}"
                )
            case 413:
                return self.error(f"{self.name} was given more text than it takes at once ({shown}); send less")
            case 429:
                return self.error(
                    f"{self.name} takes no more requests for now ({shown}); try again {_when(retry_after)}"
                )
            case failed if failed >= 500:
                return self.error(f"{self.name} is out of order ({shown}); try again later")
        return self.error(f"{self.name} did not accept the request ({shown}); {self.console} may say why")

    def silence(self, timeout_s: float) -> EngineError:
        """Return the error for nothing that came in time."""
        return self.error(f"{self.name} sent nothing for {timeout_s:g} s; try again later")

    def unreachable(self, url: str) -> EngineError:
        """Return the error for a host that cannot be connected to; the rest of the URL is not told."""
        host = urlsplit(url).hostname
        return self.error(f"{self.name} cannot be reached at {host}; check the network, the proxy and {self.url}")

    def dropped(self) -> Dropped:
        """Return the error for a connection that ended before the answer did."""
        return Dropped(f"{self.engine}: the connection to {self.name} was lost; try again")

    def rubbish(self, what: str) -> EngineError:
        """Return the error for an answer that does not speak the vendor's protocol."""
        return self.error(f"{self.name} sent something that is no answer ({what}); check {self.url}")

    def failure(self, error: BaseException | None, url: str, timeout_s: float) -> EngineError:
        """Return what an exception of an HTTP client, or of an SDK that stumbled over an answer, means."""
        import httpx

        match error:
            case EngineError():
                return error
            case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError() | httpx.UnsupportedProtocol():
                return self.unreachable(url)
            case httpx.TimeoutException() | TimeoutError():
                return self.silence(timeout_s)
            case httpx.TransportError():
                return self.dropped()
        return self.rubbish(type(error).__name__)


def _when(retry_after: str | None) -> str:
    if retry_after is None or not SECONDS.fullmatch(retry_after):
        return "later"
    return f"in {float(retry_after):g} s"


def code_of(body: object) -> str:
    """Return the machine-readable code in the body of a vendor's error, empty where there is none."""
    for place in ("error", "detail"):
        if isinstance(body, Mapping) and isinstance(body.get(place), Mapping):
            body = body[place]
    if not isinstance(body, Mapping):
        return ""
    codes = (body.get(name) for name in ("code", "error_code", "status"))
    return next((code for code in codes if isinstance(code, str) and CODE.fullmatch(code)), "")


def connections(timeout_s: float, url: str) -> WarmPool:
    """Return a pool that keeps connections to ``url`` warm. Blocks: reads certificates (50 ms), imports libraries.

    Redirects are not followed: they would take the key to another host.
    """
    import httpx

    from .cloud_transport import PatientTransport, WarmPool

    import_put_off()
    client = httpx.AsyncClient(
        timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
        limits=httpx.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S
        ),
    )
    # Not its argument ``transport``, with which it would take no proxy from the environment.
    client._transport = PatientTransport(client._transport)
    client._mounts = {place: PatientTransport(proxy) if proxy else None for place, proxy in client._mounts.items()}
    return WarmPool(client, url)


def import_put_off() -> None:
    """Import what httpx would import with its first request. Blocks."""
    for put_off in PUT_OFF:
        with suppress(ImportError):
            importlib.import_module(put_off)


async def unwind(iterator: AsyncIterator[object]) -> None:
    """Run a library's nested generators to their end once the response they read has been closed.

    Otherwise each is left suspended in a cycle until the garbage collector finds it, and ended by a task of nobody.
    """
    with suppress(Exception):
        async for _ in iterator:
            pass


def voice_id(vendor: Vendor, voice: str | None, default: str) -> str:
    """Return the voice to ask for. Raises NotOffered for what can be no id: it may become a part of a URL."""
    if voice is None:
        return default
    if not VOICE_ID.fullmatch(voice):
        raise NotOffered(f"{vendor.engine}: {voice[:64]!r} is no voice's id at {vendor.name}; see {vendor.console}")
    return voice


def default_voice(settings: Settings, name: str, default: str) -> str:
    """Return the voice that the setting ``name`` chooses. Raises EngineUnavailable for what can be no id."""
    voice = settings.get(name, "").strip() or default
    if not VOICE_ID.fullmatch(voice):
        raise EngineUnavailable(f"a voice's id in {name}, not {voice[:64]!r}")
    return voice


def pieces(text: str, characters: int) -> list[str]:
    """Cut a text that is longer than a vendor takes at once, between words where it can be; blank text is none."""
    return textwrap.wrap(text, characters)


class S16:
    """Samples out of little-endian 16-bit bytes that are cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, chunk: bytes) -> Pcm:
        """Add bytes; return the samples that are now whole, in memory of their own."""
        octets = self._rest + chunk
        whole = len(octets) - len(octets) % 2
        self._rest = octets[whole:]
        return np.frombuffer(octets[:whole], "<i2").astype(np.int16, copy=False)
