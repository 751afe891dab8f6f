"""Errors by guilt: who caused it decides what happens to the call."""

from __future__ import annotations


class VocalError(Exception):
    """Carry a message a person can act on: what was wrong and what to do."""


class ProtocolError(VocalError):
    """The other side sent something wrong. HTTP 400, WebSocket 1002; the process is unharmed.

    ``param`` names the offending field, ``status`` is the HTTP status to answer with.
    """

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class EngineError(VocalError):
    """One of our engines failed. The reply fails, the call lives on."""


class EngineUnavailable(EngineError):
    """An engine cannot be used on this machine; the message names the one thing it lacks."""


class NotOffered(EngineError):
    """An engine works, but has not what was asked of it: this voice, this language. HTTP 400: another one may do."""


class Overloaded(VocalError):
    """No room for another session. HTTP 503 with Retry-After, WebSocket 1013."""

    def __init__(self, message: str, *, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
