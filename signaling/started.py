"""What ``/start`` promised: the request data of sessions whose offer has yet to come, bounded and expiring."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import Overloaded, ProtocolError

TTL_S = 600.0
MAX_SESSIONS = 4096
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Started:
    request: Mapping[str, Any]
    size_bytes: int
    expires_at_s: float


class StartedSessions:
    """Keep each session's request data for ``ttl_s`` after it was last asked for."""

    def __init__(
        self,
        ttl_s: float = TTL_S,
        max_sessions: int = MAX_SESSIONS,
        max_bytes: int = MAX_BYTES,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``monotonic_s`` tells seconds that never run backwards."""
        self._ttl_s = ttl_s
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._monotonic_s = monotonic_s
        self._sessions: OrderedDict[str, _Started] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """How many are kept, expired ones among them until the next is added."""
        return len(self._sessions)

    def add(self, request: Mapping[str, Any], size_bytes: int) -> str:
        """Keep a new session's data, ``size_bytes`` long as it came; return its id, unguessable.

        Raises Overloaded when there is no room: those that wait are never pushed out by newcomers.
        """
        self._forget_expired()
        if len(self._sessions) >= self._max_sessions or self._bytes + size_bytes > self._max_bytes:
            raise Overloaded("too many sessions were started and never connected", retry_after_s=30)
        session_id = secrets.token_urlsafe(16)
        self._keep(session_id, request, size_bytes)
        return session_id

    def find(self, session_id: str) -> Mapping[str, Any]:
        """Return a session's data and keep it for another ``ttl_s``. Raises ProtocolError 404."""
        self._forget_expired()
        started = self._sessions.get(session_id)
        if started is None:
            raise ProtocolError(
                "no such session, or it has expired: POST /start for a new one", param="sessionId", status=404
            )
        self._drop(session_id)
        self._keep(session_id, started.request, started.size_bytes)
        return started.request

    def _keep(self, session_id: str, request: Mapping[str, Any], size_bytes: int) -> None:
        self._sessions[session_id] = _Started(request, size_bytes, self._monotonic_s() + self._ttl_s)
        self._bytes += size_bytes

    def _drop(self, session_id: str) -> None:
        self._bytes -= self._sessions.pop(session_id).size_bytes

    def _forget_expired(self) -> None:
        """Drop from the front: the order of last use is the order of expiry."""
        now_s = self._monotonic_s()
        while self._sessions:
            session_id, started = next(iter(self._sessions.items()))
            if started.expires_at_s > now_s:
                return
            self._drop(session_id)
