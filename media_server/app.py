"""The composition root: which parts there are, who is given what, in which order they start and end.

Start: service processes of heavy engines, the engines (each created off the loop), the catalogue, then the hub; then
the routes answer. End, in reverse: the hub hangs up what is left, then the engines' threads are joined.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime
from functools import partial

from aiohttp import web

import web as page
from compat_ws import catalogue_routes, handler
from compat_ws.backend import CATALOGUE, ENGINES, LISTENER, SESSIONS
from compat_ws.routes import add_service_routes
from pipeline.catalogue import Catalogue
from pipeline.engines import Kind
from pipeline.voices import VoiceSamples
from signaling.auth import Access, Operators
from signaling.calls import CALLS
from signaling.ice import IceServers, tuples
from signaling.routes import SignalingConfig, add_guard
from signaling.routes import add_routes as add_signaling_routes

from . import engine_list, health, operating, version
from .config import Config
from .engine_list import ENGINE_LIST, EngineList
from .engine_set import EngineSet
from .hub import Hub, HubListener, Limits
from .log import complaints
from .metrics import Metrics
from .operating import OPERATORS, STATUS
from .opus import libopus
from .output import console
from .rtc_calls import RtcCalls
from .sessions import SessionMaker, WebSocketSessions, session_settings
from .status import StatusBoard
from .supervisor import Supervisor

CONFIG: web.AppKey[Config] = web.AppKey("config", Config)
METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)
ENGINE_SET: web.AppKey[EngineSet] = web.AppKey("engine_set", EngineSet)
SUPERVISOR: web.AppKey[Supervisor] = web.AppKey("supervisor", Supervisor)
HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)

SERVED: tuple[Kind, ...] = ("stt", "llm", "tts")
"""The kinds of engine that have routes of their own."""
VOICED: tuple[Kind, ...] = ("llm", "tts")
"""Those whose routes know personalities."""


def create_app(config: Config) -> web.Application:
    """Put the server together. Engines are created when the application starts: EngineUnavailable comes then."""
    app, access = _new_app(config, SERVED), _access(config)
    app[OPERATORS] = Operators(access)
    engines = partial(_open_engines, config.engine_names())
    app.cleanup_ctx.extend([_open_services, engines, _open_engine_list, _open_catalogue, _open_hub, _open_status])
    app.on_shutdown.append(_hang_up)
    add_signaling_routes(app, SignalingConfig(_ice(config), access))
    handler.add_routes(app.router)
    catalogue_routes.add_routes(app.router)
    engine_list.add_routes(app.router)
    health.add_routes(app.router, app[METRICS], lambda: _why_not_ready(app))
    operating.add_routes(app.router)
    page.add_routes(app)
    return app


def create_service_app(config: Config, kind: Kind) -> web.Application:
    """Put one service together: one engine, its routes, and an operator's."""
    app = _new_app(config, (kind,))
    app.cleanup_ctx.append(partial(_open_engines, {kind: config.engine_names()[kind]}))
    if kind in VOICED:
        app.cleanup_ctx.append(_open_catalogue)
    add_guard(app, _access(config))
    health.add_routes(app.router, app[METRICS], lambda: _why_not_ready(app))
    return app


def _new_app(config: Config, served: Collection[Kind]) -> web.Application:
    app = web.Application()
    app[CONFIG] = config
    app[METRICS] = Metrics()
    app[LISTENER] = app[METRICS].services()
    add_service_routes(app, served)
    return app


def _ice(config: Config) -> IceServers:
    return IceServers(config.ice_servers, config.turn_secret, config.turn_ttl_s)


def _access(config: Config) -> Access:
    return Access(config.host, config.api_keys, config.origins, operator_keys=config.operator_keys)


async def _open_services(app: web.Application) -> AsyncIterator[None]:
    async with Supervisor(console(sys.stderr, app[CONFIG].log_format)) as supervisor:
        app[SUPERVISOR] = supervisor
        yield


async def _open_engines(wanted: Mapping[Kind, str], app: web.Application) -> AsyncIterator[None]:
    start_service = app[SUPERVISOR].start if SUPERVISOR in app else None  # a service is its engine's own process
    async with EngineSet(wanted, app[CONFIG].settings, start_service) as engines:
        app[ENGINE_SET] = app[ENGINES] = engines
        yield


async def _open_engine_list(app: web.Application) -> AsyncIterator[None]:
    async with EngineList(app[ENGINE_SET].named_settings, app[ENGINE_SET].served) as engines:
        app[ENGINE_LIST] = engines
        yield


async def _open_catalogue(app: web.Application) -> AsyncIterator[None]:
    config = app[CONFIG]
    async with Catalogue(config.database(), VoiceSamples(config.data_dir / "voices")) as catalogue:
        app[CATALOGUE] = catalogue
        yield


async def _open_hub(app: web.Application) -> AsyncIterator[None]:
    config, metrics, catalogue = app[CONFIG], app[METRICS], app[CATALOGUE]
    ice = _ice(config)
    libopus()  # found and loaded now, or the first caller's first packet would wait for it
    make_session = SessionMaker(app[ENGINE_SET], session_settings(config), metrics)
    limits = Limits(max_sessions=config.max_sessions, max_lag_ms=config.max_loop_lag_ms)
    listener = HubListener(metrics.call_opened, metrics.call_closed, metrics.refused, metrics.lagged)
    async with Hub(limits, listener) as hub:
        app[HUB] = hub
        app[SESSIONS] = WebSocketSessions(hub, make_session, catalogue)
        app[CALLS] = RtcCalls(
            hub, make_session, catalogue.find, lambda: tuples(ice.issue(datetime.now(UTC).timestamp(), "server"))
        )
        yield


async def _open_status(app: web.Application) -> AsyncIterator[None]:
    with complaints() as kept:
        app[STATUS] = StatusBoard(
            version=version(),
            hub=app[HUB],
            metrics=app[METRICS],
            engines=app[ENGINE_SET],
            supervisor=app[SUPERVISOR],
            complaints=kept,
            why_not_ready=partial(_why_not_ready, app),
            since_s=time.monotonic(),
        )
        yield


async def _hang_up(app: web.Application) -> None:
    """End the calls before the server waits for requests in progress: a WebSocket is one."""
    await app[HUB].close_all("server closed")


async def _why_not_ready(app: web.Application) -> str | None:
    full = app[HUB].why_not() if HUB in app else None
    down = app[SUPERVISOR].state() if SUPERVISOR in app else None
    return full or down or await app[ENGINE_SET].why_not_ready()
