"""Where a server that speaks OpenAI's HTTP API is, by settings.

For KIND one of STT, LLM and TTS: ``VOCAL_KIND_URL`` (with or without its ``/v1``), ``VOCAL_KIND_API_KEY``,
``VOCAL_KIND_MODEL`` (else a service of ours decides, and of another server it is the first that it lists), and for how
many seconds to wait: to connect (``VOCAL_KIND_CONNECT_S``), for the first item (``VOCAL_KIND_FIRST_S``) and from one to
the next (``VOCAL_KIND_NEXT_S``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .engines import Kind, Settings, Usable, number
from .errors import EngineUnavailable

RANK = 100
"""Above every engine in this process: whoever names a server wants it."""

CONNECT_S = 3.0
FIRST_S: Mapping[Kind, float] = {"stt": 10.0, "llm": 20.0, "tts": 10.0}
NEXT_S = 10.0

_VERSION = re.compile(r"/v\d[^/]*(/|$)")
_KEY = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server for one kind of engine; ``url`` is what ``/models`` follows."""

    kind: Kind
    url: str
    connect_s: float
    first_s: float
    next_s: float
    model: str | None = None
    key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"the {self.kind} server ({self.variable('URL')})"

    def variable(self, name: str) -> str:
        """Return the name of one of its settings."""
        return _variable(self.kind, name)


def endpoint(kind: Kind, settings: Settings) -> Endpoint:
    """Read the settings. Raises EngineUnavailable naming the one that is missing or not usable."""
    key = settings.get(_variable(kind, "API_KEY"), "").strip()
    if not _KEY.fullmatch(key):
        raise EngineUnavailable(f"{_variable(kind, 'API_KEY')} without spaces and line breaks")
    return Endpoint(
        kind,
        _base(kind, settings),
        connect_s=number(settings, _variable(kind, "CONNECT_S"), CONNECT_S, least=0.01),
        first_s=number(settings, _variable(kind, "FIRST_S"), FIRST_S[kind], least=0.01),
        next_s=number(settings, _variable(kind, "NEXT_S"), NEXT_S, least=0.01),
        model=settings.get(_variable(kind, "MODEL"), "").strip() or None,
        key=key or None,
    )


def describe(kind: Kind, settings: Settings) -> Usable:
    """Say whether a server is named; asks no network."""
    try:
        return Usable(RANK, f"an OpenAI-compatible server, {endpoint(kind, settings).url}")
    except EngineUnavailable as error:
        return Usable(RANK, "an OpenAI-compatible server", str(error))


def _variable(kind: Kind, name: str) -> str:
    return f"VOCAL_{kind.upper()}_{name}"


def _base(kind: Kind, settings: Settings) -> str:
    """Return the URL up to its version, ``/v1`` where it names none."""
    variable = _variable(kind, "URL")
    url = settings.get(variable, "").strip().rstrip("/")
    if not url:
        raise EngineUnavailable(variable)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isascii()
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise EngineUnavailable(f"{variable} that is a URL like http://127.0.0.1:8003/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise EngineUnavailable(f"{variable} without a password, a query or a fragment")
    return url if _VERSION.search(parts.path) else f"{url}/v1"
