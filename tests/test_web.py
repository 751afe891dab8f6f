"""The page's routes: types, headers, caching; and what the page's own files may hold."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

import web as page

FILES = [path for path in page.STATIC.iterdir() if path.is_file()]
VENDORED = [path for path in (page.STATIC / "vendor").rglob("*") if path.suffix in (".js", ".css")]

Client = TestClient[web.Request, web.Application]


def with_page(talk: Callable[[Client], Awaitable[None]]) -> None:
    """Run ``talk`` with a client of a server that has the page and nothing else."""

    async def main() -> None:
        app = web.Application()
        page.add_routes(app)
        async with TestClient(TestServer(app)) as client:
            await talk(client)

    asyncio.run(main())


def check_headers(response: ClientResponse) -> None:
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["ETag"]


def test_every_file_is_served_with_its_type_and_headers() -> None:
    types = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

    async def talk(client: Client) -> None:
        for path in [*FILES, *VENDORED]:
            name = path.relative_to(page.STATIC).as_posix()
            url = {"index.html": "/", "status.html": "/status"}.get(name, f"/static/{name}")
            response = await client.get(url)
            assert response.status == 200
            assert response.content_type == types[path.suffix[1:]]
            assert await response.read() == path.read_bytes()
            check_headers(response)

    with_page(talk)


def test_who_has_a_file_gets_304_without_it() -> None:
    async def talk(client: Client) -> None:
        etag = (await client.get("/static/app.js")).headers["ETag"]
        for known in (etag, f'W/{etag}, "other"', "*"):
            again = await client.get("/static/app.js", headers={"If-None-Match": known})
            assert (again.status, await again.read()) == (304, b"")
            assert again.headers["ETag"] == etag
            check_headers(again)
        old = await client.get("/static/app.js", headers={"If-None-Match": '"an older one"'})
        assert old.status == 200

    with_page(talk)


@pytest.mark.parametrize(
    "path", ["/static/", "/static/../__init__.py", "/static/%2e%2e%2f__init__.py", "/static/nothing.js"]
)
def test_nothing_else_is_served(path: str) -> None:
    async def talk(client: Client) -> None:
        response = await client.get(path)
        assert response.status == 404
        head = await client.head("/")
        assert head.status == 200
        assert (await client.post("/")).status == 405

    with_page(talk)


def test_every_module_an_import_names_exists() -> None:
    for path in page.STATIC.glob("*.js"):
        for name in re.findall(r'(?:from |import\()"\./([^"]+)"', path.read_text()):
            assert (page.STATIC / name).is_file(), f"{path.name} imports {name}"
    for path in page.STATIC.glob("*.html"):
        for name in re.findall(r'(?:src|href)="static/([^"]+)"', path.read_text()):
            assert (page.STATIC / name).is_file(), f"{path.name} names {name}"


def test_all_that_the_first_view_imports_is_asked_for_at_once() -> None:
    asked = re.findall(r'rel="modulepreload" href="static/([^"]+)"', (page.STATIC / "index.html").read_text())
    assert asked == sorted(imported_by("app.js") - {"app.js"})


def imported_by(name: str, *known: str) -> set[str]:
    """Return the names of this module and of all that it imports before it runs."""
    found = {name, *known}
    for other in re.findall(r'^import [^;]*?"\./([^"]+)";', (page.STATIC / name).read_text(), re.MULTILINE):
        if other not in found:
            found |= imported_by(other, *found)
    return found


def test_what_is_vendored_has_its_licence_and_names_its_version() -> None:
    for path in VENDORED:
        assert "Permission is hereby granted" in (path.parent / "LICENSE").read_text()
        assert path.suffix == ".css" or re.match(r"/\*! \S+ \(v\d+\.\d+\.\d+\) \*/", path.read_text())


def test_the_page_needs_no_inline_code_no_markup_from_text_and_nothing_from_elsewhere() -> None:
    for path in page.STATIC.glob("*.html"):
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", path.read_text()), path.name
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/)[a-z0-9-]+\.[a-z]", text), path.name
