"""The composition root: which parts there are, who is given what, in which order they start and end.

Start: the engines (each created off the loop), then the hub, then the routes answer. End, in reverse: the hub hangs up
what is left, then the engines' threads are joined.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from aiohttp import web

import web as page
from pipeline.agents import Agent, Agents
from pipeline.engines import Chosen, Engines, Kind
from pipeline.history import History
from pipeline.playout import Playout
from pipeline.session import Session, SessionSettings
from pipeline.speech import SpeechSettings
from pipeline.turn_taking import TurnSettings
from signaling.auth import Access
from signaling.calls import CALLS
from signaling.ice import IceServers, tuples
from signaling.routes import SignalingConfig
from signaling.routes import add_routes as add_signaling_routes

from . import health
from .config import Config
from .engine_set import as_engines, open_engines
from .hub import Hub, HubListener, Limits
from .metrics import Metrics
from .opus import libopus

PAUSE_MS = 200
"""The pause at which an answer is prepared: at the latest half way through the silence rule."""
UNDECIDED_MS = 1600
"""The silence that ends a turn against the judgment of an end-of-turn engine, unless the rule is longer."""

CONFIG: web.AppKey[Config] = web.AppKey("config", Config)
METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)
CHOSEN: web.AppKey[Mapping[Kind, Chosen]] = web.AppKey("chosen", Mapping)
HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)


def create_app(config: Config) -> web.Application:
    """Put the parts together. Engines are created when the application starts: EngineUnavailable comes then."""
    app = web.Application()
    app[CONFIG] = config
    app[METRICS] = Metrics()
    app.cleanup_ctx.extend([_open_engines, _open_hub])
    add_signaling_routes(app, _signaling(config))
    health.add_routes(app.router, app[METRICS], lambda: app[HUB].why_not())  # noqa: PLW0108 - there is no hub yet
    page.add_routes(app)
    return app


def _ice(config: Config) -> IceServers:
    return IceServers(config.ice_servers, config.turn_secret, config.turn_ttl_s)


def _signaling(config: Config) -> SignalingConfig:
    return SignalingConfig(ice=_ice(config), access=Access(config.host, config.api_keys, config.origins))


async def _open_engines(app: web.Application) -> AsyncIterator[None]:
    config = app[CONFIG]
    async with open_engines(config.engine_names(), config.settings) as chosen:
        app[CHOSEN] = chosen
        yield


async def _open_hub(app: web.Application) -> AsyncIterator[None]:
    config, metrics = app[CONFIG], app[METRICS]
    ice = _ice(config)
    libopus()  # found and loaded now, or the first caller's first packet would wait for it
    hub = Hub(
        SessionMaker(as_engines(app[CHOSEN]), session_settings(config), metrics),
        Agents().find,
        lambda: tuples(ice.issue(datetime.now(UTC).timestamp(), "server")),
        Limits(max_sessions=config.max_sessions, max_lag_ms=config.max_loop_lag_ms),
        HubListener(metrics.call_opened, metrics.call_closed, metrics.refused, metrics.lag_ms.observe),
    )
    async with hub:
        app[HUB] = app[CALLS] = hub
        yield


def session_settings(config: Config) -> SessionSettings:
    """Say how sessions listen."""
    return SessionSettings(
        speech=SpeechSettings(pause_ms=min(PAUSE_MS, config.endpoint_ms // 2)),
        turns=TurnSettings(endpoint_ms=config.endpoint_ms, endpoint_max_ms=max(UNDECIDED_MS, config.endpoint_ms)),
    )


class SessionMaker:
    """Make the hub's sessions: everything they share is decided."""

    def __init__(self, engines: Engines, settings: SessionSettings, metrics: Metrics) -> None:
        self._engines = engines
        self._settings = settings
        self._metrics = metrics

    def __call__(self, agent: Agent, playout: Playout, history: History | None) -> Session:
        """Return a session whose events are counted."""
        session = Session(agent, self._engines, playout, self._settings, history)
        session.subscribe(self._metrics.observe)
        return session
