"""Voices over HTTP: ``/voices``. A voice is kept here; only who asks for it has it made at a vendor too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BeforeValidator, ConfigDict

from pipeline.agents import Language, Name
from pipeline.cloning import VoiceMaker, voice_maker, voice_makers
from pipeline.errors import EngineUnavailable, ProtocolError
from signaling.schema import Wire

from .asking import engine_named
from .backend import CATALOGUE, ENGINES
from .shown import created, shown
from .uploads import Form, WholeForms

MAX_UPLOADS = 4
SAMPLE_AGE_S = 3600
ENGINE = "engine"
REMOTE = "openai_compatible"
MAKERS = tuple(voice_makers())
"""The speech engines whose vendors make voices; found now, for that reads a folder."""


def _listed(text: object) -> object:
    """Take a list apart that is written with commas; a name that is given twice is given once."""
    if not isinstance(text, str):
        return text
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


class VoiceFields(Wire):
    """What a voice's form holds beside the file: ``engine`` names speech engines whose vendors are to make it too."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    engine: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    language: Language = "en"


def add_routes(router: web.UrlDispatcher) -> None:
    """Add them. The application has a `CATALOGUE`, and `ENGINES` if voices are to be made at vendors."""
    router.add_get("/voices", list_voices)
    router.add_post("/voices", VoiceUploads().add_voice)
    router.add_delete("/voices/{id}", remove_voice)
    router.add_get("/voices/{id}/sample", play_voice)


async def list_voices(request: web.Request) -> web.Response:
    """Show all voices."""
    return shown({"voices": [asdict(voice) for voice in await request.app[CATALOGUE].voices()]})


async def remove_voice(request: web.Request) -> web.Response:
    """Forget a voice, at vendors too."""
    await request.app[CATALOGUE].remove_voice(request.match_info["id"], lambda engine: maker_at(request.app, engine))
    return web.Response(status=204)


async def play_voice(request: web.Request) -> web.Response:
    """Return a voice's sample, which never changes, for the one who asked to keep a while."""
    sample = await request.app[CATALOGUE].voice_sample(request.match_info["id"])
    headers = {str(hdrs.CACHE_CONTROL): f"private, max-age={SAMPLE_AGE_S}"}
    return web.Response(body=sample, content_type="audio/wav", headers=headers)


class VoiceUploads:
    """``POST /voices``: few at once, for they are held in memory."""

    def __init__(self) -> None:
        self._forms = WholeForms(MAX_UPLOADS)

    async def add_voice(self, request: web.Request) -> web.Response:
        """Keep a new voice."""
        with self._forms.holding():
            form = Form(request, repeated=[ENGINE])
            source = await _file(form)
            fields = form.read_into(VoiceFields)
            makers = await makers_at(request.app, fields.engine)
            voice = await request.app[CATALOGUE].add_voice(fields.name, source, makers, fields.language)
        return created(f"/voices/{voice.id}", asdict(voice))


async def _file(form: Form) -> bytes:
    """Read a form to its end and return its file."""
    await form.read_fields()
    source = bytearray()
    async for octets in form.content():
        source += octets
    await form.read_fields()
    if form.file is None:
        raise ProtocolError("the form has no sound: send 3 to 30 s of speech as the field 'file'", param="file")
    return bytes(source)


async def makers_at(app: web.Application, engines: Sequence[str]) -> Mapping[str, VoiceMaker]:
    """Return what makes voices for these speech engines.

    Raises ProtocolError (param ``engine``) for one that makes none or lacks its key; it names those that could.
    """
    makers = {}
    for engine in engines:
        try:
            makers[engine] = await maker_at(app, engine)
        except EngineUnavailable as error:
            raise ProtocolError(f"{error}; {await _who_can(app)}", param=ENGINE) from error
        except ProtocolError as error:
            raise ProtocolError(f"{error}; {await _who_can(app)}", param=ENGINE) from None
    return makers


async def maker_at(app: web.Application, engine: str) -> VoiceMaker:
    """Return what makes voices for a speech engine.

    Raises ProtocolError (param ``engine``) for one that makes none, EngineUnavailable for one that lacks something.
    """
    if engine in MAKERS or engine == _own(app):
        maker = voice_maker((await engine_named(app, "tts", engine)).engine)
        if maker is not None:
            return maker
    why = ": it is another server's, which cannot be asked for it from here" if engine == REMOTE else ""
    raise ProtocolError(f"the speech engine {engine!r:.66} makes no voices{why}", param=ENGINE)


def _own(app: web.Application) -> str | None:
    """Return the server's own choice of a speech engine, which may be an operator's."""
    own = app[ENGINES].served().get("tts")
    return own.name if own is not None else None


async def _who_can(app: web.Application) -> str:
    """Say which engines make voices here, and what the others lack."""
    usable, lacking = [], []
    for engine in MAKERS:
        try:
            await app[ENGINES].get("tts", engine)
        except EngineUnavailable as error:
            lacking.append(f"{engine} would with {error}")
        except ProtocolError:  # no engine of this kind is served here
            continue
        else:
            usable.append(engine)
    return "; ".join([f"voices are made by: {', '.join(usable) or 'none here'}", *lacking])
