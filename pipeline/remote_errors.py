"""What to tell when a server does not do what it was asked for: never what it was asked, and never the key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from .endpoint import Endpoint
from .errors import EngineError

EXCERPT_CHARACTERS = 200
PRIVATE_CHARACTERS = 4
"""Shorter texts are words that any message may have."""
MESSAGE_DEPTH = 4
REFUSED_PAUSE_S = 0.5
"""Before asking again where nobody listened: a service that starts again may be there by then."""


class Dropped(EngineError):
    """The connection failed. Asking again may help, after ``pause_s``."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def refusal(server: Endpoint, response: aiohttp.ClientResponse, body: bytes, private: Sequence[str]) -> EngineError:
    """Return the error for an answer that is not 2xx, without the ``private`` texts that its body may have."""
    status, wait_s = response.status, response.headers.get("Retry-After", "")
    said = complaint(_json(body), private)
    said = f": {said}" if said else ""
    wait = f"; it asks to wait {wait_s} s" if wait_s.isdecimal() else ""
    match status:
        case 401 | 403:
            return EngineError(f"{server} does not take the key in {server.variable('API_KEY')} (HTTP {status})")
        case 404:
            check = f"check {server.variable('URL')} and {server.variable('MODEL')}"
            return EngineError(f"{server} has no such address or model (HTTP 404{said}): {check}")
        case 413:
            return EngineError(f"{server} takes no request as long as this one (HTTP 413)")
        case 429:
            return EngineError(f"{server} was asked too much or its quota is used up (HTTP 429{said}){wait}")
        case _ if status < 400:
            return EngineError(f"{server} redirects (HTTP {status}): name the address it redirects to")
        case _ if status < 500:
            return EngineError(f"{server} refused the request (HTTP {status}{said})")
    return EngineError(f"{server} failed (HTTP {status}{said}){wait}")


def failure(server: Endpoint, error: aiohttp.ClientError) -> EngineError:
    """Return the error for a request that got no whole answer."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return EngineError(f"{server} cannot be found: nobody knows its host name")
        case aiohttp.ClientSSLError():
            return EngineError(f"{server} cannot be reached over TLS: its certificate or its protocol is wrong")
        case aiohttp.ClientConnectorError():
            return Dropped(f"{server} does not listen: is it running?", REFUSED_PAUSE_S)
        case aiohttp.ConnectionTimeoutError():
            return EngineError(f"{server} did not take a connection within {server.connect_s:g} s")
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError():
            return Dropped(f"{server} dropped the connection")
        case aiohttp.InvalidURL():
            return EngineError(f"{server.variable('URL')} is not a URL that can be asked")
    return EngineError(f"{server} does not answer as HTTP prescribes")


def complaint(answer: Any, private: Sequence[str]) -> str:
    """Return the message of a JSON error as one short line, without ``private`` texts; empty where there is none."""
    said = _message(answer)
    for text in sorted(private, key=len, reverse=True):
        said = said.replace(text, "...") if len(text) >= PRIVATE_CHARACTERS else said
    line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return line if len(line) <= EXCERPT_CHARACTERS else f"{line[:EXCERPT_CHARACTERS]}..."


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _message(answer: Any) -> str:
    """Find the message: OpenAI's ``error.message``, others' ``error``, ``message`` and ``detail`` (a list: FastAPI)."""
    for _ in range(MESSAGE_DEPTH):
        if isinstance(answer, Mapping):
            answer = next((answer[key] for key in ("error", "message", "detail", "msg") if answer.get(key)), "")
        elif isinstance(answer, list):
            answer = answer[0] if answer else ""
    return answer if isinstance(answer, str) else ""
