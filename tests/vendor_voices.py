"""Local servers that speak the voice cloning of ElevenLabs and Cartesia, to their real SDKs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web

from tests.vendors import KEY, Script, begin, serving, tone


@dataclass(frozen=True)
class Made:
    """A voice as its vendor was asked for it."""

    name: str
    language: str
    sample: bytes
    headers: Mapping[str, str] = field(repr=False)


@dataclass
class VoiceVendor:
    """Keeps the voices it is asked to make. ``making`` and ``deleting`` replace its answers to requests."""

    known: dict[str, Made] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    asked: list[str] = field(default_factory=list)
    """What was asked for: method and path."""
    spoken: list[str] = field(default_factory=list)
    """The voices that spoke."""
    making: Script | None = None
    deleting: Script | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    deleted: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def elevenlabs(self, request: web.Request) -> web.StreamResponse:
        """Answer as ElevenLabs does."""
        self.asked.append(f"{request.method} {request.path}")
        assert request.headers["xi-api-key"] == KEY
        match request.method, request.path.split("/")[2:]:
            case "POST", ["voices", "add"]:
                form = await request.post()
                language = str(form["labels"])
                voice = await self._make(request, form["name"], language, form["files"])
                if self.making is not None:
                    return await self.making(request)
                return web.json_response({"voice_id": voice, "requires_verification": False})
            case "DELETE", ["voices", voice]:
                if self.deleting is not None:
                    return await self.deleting(request)
                if self._forget(voice):
                    return web.json_response({"status": "ok"})
                code = {"type": "error", "code": "voice_not_found", "status": "voice_does_not_exist", "message": KEY}
                return web.json_response({"detail": code}, status=400)
            case "POST", ["text-to-speech", voice, "stream"]:
                self.spoken.append(voice)
                response = await begin(request, "audio/pcm")
                await response.write(tone(4_800).astype("<i2").tobytes())
                return response
        raise web.HTTPNotFound

    async def cartesia(self, request: web.Request) -> web.StreamResponse:
        """Answer as Cartesia does."""
        self.asked.append(f"{request.method} {request.path}")
        assert KEY in request.headers.get("Authorization", "") + request.headers.get("X-API-Key", "")
        match request.method, request.path.split("/")[1:]:
            case "POST", ["voices", "clone"]:
                form = await request.post()
                voice = await self._make(request, form["name"], str(form["language"]), form["clip"])
                if self.making is not None:
                    return await self.making(request)
                return web.json_response({**CARTESIA_VOICE, "id": voice, "name": form["name"]})
            case "DELETE", ["voices", voice]:
                if self.deleting is not None:
                    return await self.deleting(request)
                if self._forget(voice):
                    return web.Response(status=204)
                return web.json_response(cartesia_error("voice_not_found"), status=404)
        raise web.HTTPNotFound

    async def _make(self, request: web.Request, name: Any, language: str, file: Any) -> str:
        assert file.content_type == "audio/wav" and file.filename == "sample.wav"
        with file.file:
            made = Made(name, language, file.file.read(), dict(request.headers))
        self.begun.set()
        await asyncio.shield(self.may_answer.wait())
        voice = f"made-{next(self.numbers)}"
        if self.making is None:
            self.known[voice] = made
        return voice

    def _forget(self, voice: str) -> bool:
        self.deleted.set()
        return self.known.pop(voice, None) is not None


CARTESIA_VOICE = {
    "access": "private",
    "created_at": "2026-01-01T00:00:00Z",
    "description": "",
    "language": "en",
    "tagline": "",
    "user_id": "u",
    "visibility": "owner",
}


def cartesia_error(code: str | None) -> dict[str, Any]:
    """Return the body of an error, which quotes what must not be told."""
    return {"error_code": code, "title": "No", "message": f"{KEY}: words", "request_id": "r"}


def eleven_voice_error(code: str, status: str) -> dict[str, Any]:
    """Return the body of an error, with its new code and its old one."""
    return {"detail": {"type": "error", "code": code, "status": status, "message": f"{KEY}: words"}}


def page(status: int) -> Script:
    """Return a script that answers as a proxy does that knows nothing of the vendor."""

    async def script(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>hello</html>", content_type="text/html")

    return script


@dataclass
class Vendors:
    """Both, and the settings with which their engines find them."""

    elevenlabs: VoiceVendor
    cartesia: VoiceVendor
    settings: dict[str, str]


@asynccontextmanager
async def voice_vendors() -> AsyncIterator[Vendors]:
    """Serve both."""
    eleven, cartesia = VoiceVendor(), VoiceVendor()
    async with serving(eleven.elevenlabs) as eleven_url, serving(cartesia.cartesia) as cartesia_url:
        settings = {
            "ELEVENLABS_API_KEY": KEY,
            "ELEVENLABS_BASE_URL": eleven_url,
            "CARTESIA_API_KEY": KEY,
            "CARTESIA_BASE_URL": cartesia_url,
        }
        yield Vendors(eleven, cartesia, settings)
