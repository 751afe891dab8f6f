"""A hub of models on this machine, as https://huggingface.co is one to its library: metadata, files, ranges."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from .vendors import serving

BIG_BYTES = 100_000
"""From here on a file is known by its SHA-256, as those of 10 MB are on the real one."""

PIECE_BYTES = 10_000

COMMIT = "a" * 40


@dataclass(frozen=True)
class Asked:
    """One request: where from in the file, None for all of it."""

    method: str
    path: str
    first_byte: int | None
    key: str | None


@dataclass
class Hub:
    """Serves one model. ``cuts_at`` breaks each connection at this byte of a big file; ``damages`` changes a bit.

    ``rest_s`` is the rest after each piece.
    """

    name: str
    files: dict[str, bytes]
    licence: str = "mit"
    cuts_at: int | None = None
    damages: bool = False
    rest_s: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    @staticmethod
    def of(name: str, folder: Path) -> Hub:
        """Return a hub that has the model of a folder."""
        return Hub(name, {file.name: file.read_bytes() for file in folder.iterdir()})

    def downloads(self, file: str) -> list[Asked]:
        """Return when the content of a file was asked for."""
        return [asked for asked in self.asked if asked.method == "GET" and asked.path.endswith(f"/{file}")]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        first_byte = int(found[1]) if found else None
        self.asked.append(Asked(request.method, request.path, first_byte, request.headers.get("Authorization")))
        if not re.match(rf"/(api/models/)?{self.name}(/|$)", request.path):
            return web.json_response({}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        if request.path.startswith("/api/"):
            return web.json_response(self._info())
        name = request.path.rpartition("/")[2]
        if name not in self.files:
            return web.json_response({}, status=404, headers={"X-Error-Code": "EntryNotFound"})
        return await self._send(request, self.files[name], first_byte)

    def _info(self) -> dict[str, Any]:
        siblings = [
            {"rfilename": name, "size": len(held), "blobId": "b" * 40, **self._lfs(held)}
            for name, held in self.files.items()
        ]
        return {"id": self.name, "sha": COMMIT, "siblings": siblings, "cardData": {"license": self.licence}}

    def _lfs(self, held: bytes) -> dict[str, Any]:
        if len(held) < BIG_BYTES:
            return {}
        return {"lfs": {"sha256": hashlib.sha256(held).hexdigest(), "size": len(held), "pointerSize": 130}}

    async def _send(self, request: web.Request, held: bytes, first_byte: int | None) -> web.StreamResponse:
        begin = first_byte or 0
        content = bytes([held[0] ^ 1]) + held[1:] if self.damages and len(held) >= BIG_BYTES else held
        headers = {
            "ETag": f'"{hashlib.sha256(held).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Content-Length": str(len(held) - begin),
        }
        if first_byte is not None:
            headers["Content-Range"] = f"bytes {begin}-{len(held) - 1}/{len(held)}"
        response = web.StreamResponse(status=200 if first_byte is None else 206, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        end = len(held) if self.cuts_at is None or len(held) < BIG_BYTES else self.cuts_at
        for at in range(begin, end, PIECE_BYTES):
            await response.write(content[at : min(at + PIECE_BYTES, end)])
            await asyncio.sleep(self.rest_s)
        if end < len(held):
            assert request.transport is not None
            request.transport.close()
        return response


@contextmanager
def serving_in_thread(hub: Hub) -> Iterator[str]:
    """Serve from a thread of its own, for callers that block; yields the address."""
    ready, over, urls = threading.Event(), asyncio.Event(), list[str]()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving(hub.handle) as url:
            urls.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="hub")
    thread.start()
    try:
        assert ready.wait(10)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield the address of a hub that takes connections and never says anything, as behind some firewalls."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
