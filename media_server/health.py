"""What an operator's machinery asks: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from .metrics import Metrics

WhyNot = Callable[[], Awaitable[str | None]]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def add_routes(router: web.UrlDispatcher, metrics: Metrics, why_not_ready: WhyNot) -> None:
    """Answer 200, or for ``/readyz`` 503 with what ``why_not_ready`` says."""

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        reason = await why_not_ready()
        if reason is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reason": reason}, status=503)

    async def show_metrics(request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": METRICS_TYPE})

    router.add_get("/healthz", healthz)
    router.add_get("/readyz", readyz)
    router.add_get("/metrics", show_metrics)
