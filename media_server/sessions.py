"""Sessions as every transport gets them: an agent, its engines, and how they listen."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from compat_ws.backend import Transport
from pipeline.agents import Agent
from pipeline.catalogue import Catalogue
from pipeline.history import History
from pipeline.playout import Playout
from pipeline.session import Session
from pipeline.session_settings import SessionSettings, session_settings_for
from pipeline.speech import SpeechSettings
from pipeline.turn_settings import TurnSettings

from .config import Config
from .engine_set import EngineSet
from .hub import Call, Hub
from .log import SESSION
from .metrics import Metrics

PAUSE_MS = 200
"""The pause that ends an utterance: half way through the silence rule, and no later than a turn may end."""


def session_settings(config: Config) -> SessionSettings:
    """Say how sessions listen."""
    return SessionSettings(
        speech=SpeechSettings(pause_ms=min(PAUSE_MS, config.endpoint_ms // 2, config.endpoint_min_ms)),
        turns=TurnSettings(
            endpoint_min_ms=min(config.endpoint_min_ms, config.endpoint_ms),
            endpoint_ms=config.endpoint_ms,
            endpoint_max_ms=max(config.endpoint_max_ms, config.endpoint_ms),
        ),
    )


class SessionMaker:
    """Make sessions whose events are counted."""

    def __init__(self, engines: EngineSet, settings: SessionSettings, metrics: Metrics) -> None:
        self._engines = engines
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, agent: Agent, playout: Playout, history: History | None = None) -> Session:
        """Return a session with this agent. Raises EngineUnavailable where an engine it wants cannot be used."""
        agent, engines = await self._engines.for_agent(agent)
        settings = session_settings_for(agent.detector, self._settings) if agent.detector else self._settings
        session = Session(agent, engines, playout, settings, history)
        session.subscribe(self._metrics.observe)
        return session


class WebSocketSessions:
    """Implements ``compat_ws.backend.Sessions``."""

    def __init__(self, hub: Hub, make_session: SessionMaker, catalogue: Catalogue) -> None:
        self._hub = hub
        self._make_session = make_session
        self._catalogue = catalogue

    def place(self) -> AbstractContextManager[None]:
        """See ``Sessions.place``."""
        return self._hub.place()

    @asynccontextmanager
    async def open(
        self, request: Mapping[str, Any], playout: Playout, transport: Transport, remote: str
    ) -> AsyncIterator[Session]:
        """See ``Sessions.open``."""
        agent = await self._catalogue.find(request)
        session = await self._make_session(agent, playout)
        call = Call(secrets.token_urlsafe(16), transport, session, way="websocket")
        tag = SESSION.set(call.label)
        try:
            async with session:
                self._hub.opened(call)
                yield session
        finally:
            if call.id in self._hub.calls:
                self._hub.closed(call, transport.reason)
            SESSION.reset(tag)
