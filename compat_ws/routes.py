"""The routes of the services."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from pipeline.engines import Kind


def add_service_routes(router: web.UrlDispatcher, kinds: Collection[Kind]) -> None:
    """Add the routes of these kinds' services."""
