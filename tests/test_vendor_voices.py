"""Voices made at ElevenLabs and Cartesia, behind their real SDKs, by those who ask for it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import ClientResponse, ClientSession, FormData, web
from aiohttp.typedefs import Handler
from yarl import URL

from compat_ws.backend import CATALOGUE, ENGINES, LISTENER, ServiceListener
from compat_ws.catalogue_routes import add_routes
from compat_ws.routes import add_service_routes
from compat_ws.voice_routes import makers_at
from media_server.engine_set import EngineSet
from media_server.server import new_runner
from pipeline import kept_voices
from pipeline.catalogue import Catalogue
from pipeline.cloning import voice_makers
from pipeline.engines import Kind, aclose
from pipeline.errors import EngineError, ProtocolError
from pipeline.voices import VoiceSamples
from signaling.errors import answer_errors
from tests.service_server import error_of, shelf
from tests.test_catalogue import SPEECH
from tests.vendor_voices import (
    Vendors,
    VoiceVendor,
    cartesia_error,
    eleven_voice_error,
    page,
    voice_vendors,
)
from tests.vendors import KEY, created, hang_up, refusing, run

Which = Literal["elevenlabs", "cartesia"]
BOTH: tuple[Which, Which] = ("elevenlabs", "cartesia")
SPEECH_ALONE: tuple[Kind] = ("tts",)
SAMPLE = b"RIFF" + bytes(1_000)


# --- what makes them


async def made_by(vendors: Vendors, which: Which) -> tuple[Any, VoiceVendor]:
    engine = await created("tts", which, vendors.settings)
    return engine, getattr(vendors, which)


def with_maker(test: Callable[[Any, VoiceVendor], Awaitable[None]], which: Which) -> None:
    """Run ``test`` with the real engine's voice maker and the vendor that it asks."""

    async def main() -> None:
        async with voice_vendors() as vendors:
            engine, vendor = await made_by(vendors, which)
            try:
                await test(engine.voice_maker, vendor)
            finally:
                await aclose(engine)

    run(main())


def test_it_is_known_whose_vendors_make_voices() -> None:
    assert voice_makers() == ["cartesia", "elevenlabs"]


@pytest.mark.parametrize("which", BOTH)
def test_a_voice_is_made_and_forgotten(which: Which) -> None:
    async def test(maker: Any, vendor: VoiceVendor) -> None:
        voice = await maker.make("Anna " + "x" * 200, SAMPLE, "de-at")
        made = vendor.known[voice]
        assert made.sample == SAMPLE
        assert made.name.startswith("Anna x") and len(made.name) == 100
        assert made.language == ("de" if which == "cartesia" else json.dumps({"language": "de"}))
        await maker.forget(voice)
        assert vendor.known == {}
        await maker.forget(voice)  # it is gone: that is what was wanted
        assert len(vendor.asked) == 3

    with_maker(test, which)


ELEVEN: list[tuple[int, object, str]] = [
    (400, eleven_voice_error("limit_exceeded", "voice_limit_reached"), "keeps no more voices for this account"),
    (
        400,
        eleven_voice_error("paid_plan_required", "can_not_use_instant_voice_cloning"),
        "plan at ElevenLabs has no voice",
    ),
    (403, {"detail": {"status": "can_not_use_instant_voice_cloning"}}, "plan at ElevenLabs has no voice cloning"),
    (
        401,
        eleven_voice_error("missing_permissions", "missing_permissions"),
        "key in ELEVENLABS_API_KEY may not be used",
    ),
    (401, eleven_voice_error("invalid_api_key", "invalid_api_key"), "does not take the key in ELEVENLABS_API_KEY"),
    (401, eleven_voice_error("quota_exceeded", "quota_exceeded"), "no credit left"),
    (403, eleven_voice_error("x", "voice_verification_required"), "wants this voice verified"),
    (400, eleven_voice_error("invalid_audio", "invalid_audio"), "did not take the sample (400, invalid_audio)"),
    (413, {}, "did not take the sample (413)"),
    (429, eleven_voice_error("system_busy", "system_busy"), "takes no more requests for now"),
    (500, {}, "is out of order (500)"),
    (404, {}, "clones no voices at this address (404); check ELEVENLABS_BASE_URL"),
    (200, {}, "something that is no answer"),
    (200, {"voice_id": "../../x"}, "something that is no answer"),
    (200, {"voice_id": 7, "requires_verification": False}, "something that is no answer"),
]
CARTESIA: list[tuple[int, object, str]] = [
    (402, cartesia_error("quota_exceeded"), "no credit left"),
    (402, cartesia_error("plan_upgrade_required"), "plan at Cartesia has no voice cloning"),
    (401, cartesia_error(None), "does not take the key in CARTESIA_API_KEY (401)"),
    (403, cartesia_error(None), "key in CARTESIA_API_KEY may not be used"),
    (400, cartesia_error("invalid_language"), "clones no voices in this language (400, invalid_language)"),
    (422, cartesia_error(None), "did not take the sample (422)"),
    (429, cartesia_error("concurrency_limited"), "takes no more requests for now"),
    (503, cartesia_error(None), "is out of order (503)"),
    (404, cartesia_error(None), "clones no voices at this address (404); check CARTESIA_BASE_URL"),
    (200, {}, "something that is no answer"),
]


@pytest.mark.parametrize(
    ("which", "status", "body", "words"),
    [("elevenlabs", *case) for case in ELEVEN] + [("cartesia", *case) for case in CARTESIA],
)
def test_a_refusal_is_told_in_a_user_s_words(which: Which, status: int, body: object, words: str) -> None:
    async def test(maker: Any, vendor: VoiceVendor) -> None:
        vendor.making = refusing(status, body)
        await refused(maker.make("Anna", SAMPLE, "en"), words)
        assert len(vendor.asked) == 1  # a second time might make a second voice

    with_maker(test, which)


async def refused(asking: Awaitable[object], words: str) -> None:
    with pytest.raises(EngineError) as caught:
        await asking
    assert words in str(caught.value)
    assert KEY not in str(caught.value) and "words" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("status", [200, 302, 502])
def test_a_page_is_no_answer(which: Which, status: int) -> None:
    async def test(maker: Any, vendor: VoiceVendor) -> None:
        vendor.making = page(status)
        await refused(maker.make("Anna", SAMPLE, "en"), "")
        assert len(vendor.asked) == 1

    with_maker(test, which)


@pytest.mark.parametrize("which", BOTH)
def test_a_vendor_that_cannot_be_reached_or_is_silent_is_told(which: Which, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        name = which.upper()
        nowhere = {f"{name}_API_KEY": KEY, f"{name}_BASE_URL": "http://127.0.0.1:1"}
        engine = await created("tts", which, nowhere)
        try:
            for asking in (engine.voice_maker.make("Anna", SAMPLE, "en"), engine.voice_maker.forget("v")):
                await refused(
                    asking, f"cannot be reached at 127.0.0.1; check the network, the proxy and {name}_BASE_URL"
                )
        finally:
            await aclose(engine)

    async def test(maker: Any, vendor: VoiceVendor) -> None:
        vendor.may_answer.clear()
        try:
            await refused(maker.make("Anna", SAMPLE, "en"), "sent nothing for 0.2 s")
        finally:
            vendor.may_answer.set()
        assert len(vendor.asked) == 1

    run(main())
    monkeypatch.setattr(f"pipeline.tts._{which}_voices.MAKE_S", 0.2)
    with_maker(test, which)


@pytest.mark.parametrize("which", BOTH)
def test_a_lost_connection_is_not_tried_again(which: Which) -> None:
    async def test(maker: Any, vendor: VoiceVendor) -> None:
        vendor.making = hang_up
        await refused(maker.make("Anna", SAMPLE, "en"), "was lost")
        assert len(vendor.asked) == 1

    with_maker(test, which)


def test_a_voice_that_must_be_verified_is_deleted_again() -> None:
    async def test(maker: Any, vendor: VoiceVendor) -> None:
        vendor.making = refusing(200, {"voice_id": "protected", "requires_verification": True})
        await refused(maker.make("Anna", SAMPLE, "en"), "wants this voice verified by whom it belongs to")
        assert vendor.asked == ["POST /v1/voices/add", "DELETE /v1/voices/protected"]

    with_maker(test, "elevenlabs")


@pytest.mark.parametrize("which", BOTH)
def test_what_cannot_be_deleted_is_told(which: Which) -> None:
    async def test(maker: Any, vendor: VoiceVendor) -> None:
        voice = await maker.make("Anna", SAMPLE, "en")
        vendor.deleting = refusing(500, {})
        await refused(maker.forget(voice), "is out of order (500)")
        vendor.deleting = refusing(401, {})
        await refused(maker.forget(voice), "does not take the key")

    with_maker(test, which)


# --- over HTTP


class Requests:
    """Those at work."""

    def __init__(self) -> None:
        self.none = asyncio.Event()
        self._count = 0

    @web.middleware
    async def counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count one from its begin to its end, however it ends."""
        self._count += 1
        self.none.clear()
        try:
            return await handler(request)
        finally:
            self._count -= 1
            if self._count == 0:
                self.none.set()


@dataclass
class Node:
    """A server with real engines, and vendors they ask."""

    url: str
    client: ClientSession
    catalogue: Catalogue
    vendors: Vendors
    samples: Path
    requests: Requests

    async def settled(self) -> None:
        """Wait until no request is at work any more, and nothing is being undone."""
        await self.ask("GET", "/voices")  # whatever was sent before has arrived
        await self.requests.none.wait()
        while undoing := self.catalogue._voices._undoing:
            await asyncio.wait(undoing)

    async def upload(self, *fields: tuple[str, str], name: str = "Anna") -> ClientResponse:
        """Send a voice."""
        form = FormData(default_to_multipart=True)
        for field, value in (("name", name), *fields):
            form.add_field(field, value)
        form.add_field("file", SPEECH, filename="voice.wav")
        return await self.ask("POST", "/voices", data=form)

    async def ask(self, method: str, path: str, **options: Any) -> ClientResponse:
        """Send a request; the answer is read whole."""
        response = await self.client.request(method, URL(self.url + path), **options)
        await response.read()
        return response

    def nothing_is_kept(self) -> bool:
        """Tell whether there is no sample here and no voice there."""
        return not (list(self.samples.glob("*")) or self.vendors.elevenlabs.known or self.vendors.cartesia.known)


Test = Callable[[Node], Awaitable[None]]


async def serve(test: Test, database_url: str, folder: Path, tts: str = "tone", **changed: str) -> None:
    requests = Requests()
    app = web.Application(middlewares=[requests.counted, answer_errors])
    add_routes(app.router)
    add_service_routes(app, SPEECH_ALONE)
    app[LISTENER] = ServiceListener()
    async with AsyncExitStack() as stack:
        vendors = await stack.enter_async_context(voice_vendors())
        settings = {name: value for name, value in {**vendors.settings, **changed}.items() if value}
        app[ENGINES] = await stack.enter_async_context(EngineSet({"tts": tts}, settings))
        catalogue = await stack.enter_async_context(Catalogue(database_url, VoiceSamples(folder / "voices")))
        app[CATALOGUE] = catalogue
        runner = new_runner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = await stack.enter_async_context(ClientSession())
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await test(Node(url, client, catalogue, vendors, folder / "voices", requests))


def check(test: Test, folder: Path, **options: str) -> None:
    """Run with SQLite."""
    asyncio.run(serve(test, f"sqlite:///{folder}/vocal.db", folder, **options))


def test_a_voice_is_kept_here_and_made_where_it_was_asked_for(database_url: str, tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        eleven, cartesia = node.vendors.elevenlabs, node.vendors.cartesia
        added = await node.upload(("engine", "elevenlabs"), ("engine", "cartesia"), ("language", "de"))
        assert added.status == 201
        anna = await added.json()
        (eleven_id,), (cartesia_id,) = eleven.known, cartesia.known
        assert anna["engines"] == {"elevenlabs": eleven_id, "cartesia": cartesia_id}
        assert (await (await node.ask("GET", "/voices")).json()) == {"voices": [anna]}
        kept = await (await node.ask("GET", f"/voices/{anna['id']}/sample")).read()
        for made in (eleven.known[eleven_id], cartesia.known[cartesia_id]):
            assert (made.name, made.sample) == ("Anna", kept)
            assert "de" in made.language

        plain = await (await node.upload(name="Berta")).json()
        assert plain["engines"] == {}
        assert (len(eleven.known), len(cartesia.known)) == (1, 1)

        assert (await node.ask("DELETE", f"/voices/{anna['id']}")).status == 204
        assert eleven.known == cartesia.known == {}
        assert (await (await node.ask("GET", "/voices")).json()) == {"voices": [plain]}
        assert [file.stem for file in node.samples.iterdir()] == [plain["sha256"]]

    asyncio.run(serve(test, database_url, tmp_path))


def test_an_agent_speaks_with_what_its_engine_has_of_the_voice(tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        anna = await (await node.upload(("engine", " elevenlabs ,elevenlabs"))).json()
        agent = {"id": "bob", "name": "Bob", "voice": anna["id"], "tts": "elevenlabs"}
        assert (await node.ask("POST", "/agents", json=agent)).status == 201
        bob = await node.catalogue.find({"agent": "bob"})
        assert bob.voice_for("elevenlabs", clones=False) == anna["engines"]["elevenlabs"]
        assert bob.voice_for("xtts", clones=True) == f"sample:{anna['sha256']}"
        assert bob.voice_for("cartesia", clones=False) is None
        theirs = await node.catalogue.find({"agent": "bob", "elevenLabsVoiceId": "other"})
        assert theirs.voice_for("elevenlabs", clones=False) == "other"

        asked = [
            ("/tts", {"text": "Hello there.", "personality": "bob"}),
            ("/v1/audio/speech", {"model": "elevenlabs", "input": "Hello there.", "voice": anna["id"]}),
            # what a server asks the service of its speech engine for, not knowing which engine that has
            ("/v1/audio/speech", {"model": "elevenlabs", "input": "Hello.", "voice": f"sample:{anna['sha256']}"}),
        ]
        for path, body in asked:
            assert (await node.ask("POST", path, json=body)).status == 200
        assert node.vendors.elevenlabs.spoken == [anna["engines"]["elevenlabs"]] * 3
        stranger = {"model": "elevenlabs", "input": "Hello.", "voice": "theirs"}
        assert (await node.ask("POST", "/v1/audio/speech", json=stranger)).status == 200
        assert node.vendors.elevenlabs.spoken[-1] == "theirs"

    check(test, tmp_path)


@pytest.mark.parametrize("other", BOTH)
def test_if_one_vendor_refuses_nothing_is_kept_anywhere(database_url: str, other: Which, tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        body = eleven_voice_error("x", "voice_limit_reached") if other == "elevenlabs" else cartesia_error(None)
        vendor: VoiceVendor = getattr(node.vendors, other)
        vendor.making = refusing(402 if other == "cartesia" else 400, body)
        error = await error_of(await node.upload(("engine", "cartesia,elevenlabs")), 502)
        assert error["message"].startswith(f"tts {other}: ")
        assert KEY not in error["message"]
        assert node.nothing_is_kept()
        assert (await (await node.ask("GET", "/voices")).json()) == {"voices": []}
        vendor.making = None
        assert (await node.upload(("engine", "cartesia,elevenlabs"))).status == 201

    asyncio.run(serve(test, database_url, tmp_path))


def test_what_cannot_be_undone_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(node: Node) -> None:
        node.vendors.cartesia.making = refusing(402, cartesia_error(None))
        node.vendors.elevenlabs.deleting = refusing(500, {})
        await error_of(await node.upload(("engine", "cartesia,elevenlabs")), 502)
        (left,) = node.vendors.elevenlabs.known
        assert f"the voice {left} stays at elevenlabs and is used by nobody" in caplog.text

    check(test, tmp_path)


def test_no_vendor_is_asked_for_a_voice_that_is_there_or_no_voice(tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        assert (await node.upload()).status == 201
        await error_of(await node.upload(("engine", "elevenlabs")), 409)
        await error_of(await node.upload(("engine", "elevenlabs"), name=""), 400)
        form = FormData(default_to_multipart=True)
        for field, value in (("name", "B"), ("engine", "elevenlabs")):
            form.add_field(field, value)
        form.add_field("file", SPEECH[:60_000], filename="voice.wav")
        await error_of(await node.ask("POST", "/voices", data=form), 400)
        assert node.vendors.elevenlabs.asked == []
        assert len(list(node.samples.iterdir())) == 1

    check(test, tmp_path)


def test_an_engine_that_makes_no_voices_is_told_which_do(tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        for engine in ("xtts", "tone", "espeak", "nobody", "../x", "elevenlabs,xtts", "x" * 1_000):
            error = await error_of(await node.upload(("engine", engine)), 400)
            assert error["param"] == "engine"
            assert (
                "makes no voices; voices are made by: elevenlabs; cartesia would with CARTESIA_API_KEY"
                in error["message"]
            )
        error = await error_of(await node.upload(("engine", "openai_compatible")), 400)
        assert "it is another server's, which cannot be asked for it from here; voices are" in error["message"]
        error = await error_of(await node.upload(("engine", "elevenlabs"), ("engine", "cartesia")), 400)
        assert (error["param"], "needs CARTESIA_API_KEY; voices" in error["message"]) == ("engine", True)
        await error_of(await node.upload(*[("engine", "x" * 9_000)] * 2), 413)
        await error_of(await node.upload(("language", "German")), 400)
        assert node.vendors.elevenlabs.asked == []
        assert node.nothing_is_kept()

    check(test, tmp_path, CARTESIA_API_KEY="")


def test_an_operator_s_own_engine_may_make_voices_too() -> None:
    class Own:
        voice_maker = object()

    async def main() -> None:
        app = web.Application()
        async with shelf({"tts": Own()}) as app[ENGINES]:
            assert await makers_at(app, ["own"]) == {"own": Own.voice_maker}
            with pytest.raises(ProtocolError, match=r"'tone' makes no voices; voices are made by: none here"):
                await makers_at(app, ["tone"])

    asyncio.run(main())


def test_deleting_waits_for_the_vendor_to_delete(database_url: str, tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        anna = await (await node.upload(("engine", "cartesia,elevenlabs"))).json()
        cartesia = node.vendors.cartesia
        for answer in (refusing(500, {}), refusing(401, cartesia_error(None))):
            cartesia.deleting = answer
            error = await error_of(await node.ask("DELETE", f"/voices/{anna['id']}"), 502)
            assert f"the voice '{anna['id']}' is kept, for it cannot be deleted at cartesia: " in error["message"]
        (kept,) = (await (await node.ask("GET", "/voices")).json())["voices"]
        assert kept["engines"].keys() >= {"cartesia"}
        assert len(list(node.samples.iterdir())) == 1
        cartesia.deleting = None
        cartesia.known.clear()  # by hand, on the vendor's page
        assert (await node.ask("DELETE", f"/voices/{anna['id']}")).status == 204
        assert node.nothing_is_kept()

    asyncio.run(serve(test, database_url, tmp_path))


def test_without_the_key_a_voice_at_a_vendor_is_kept(tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        await node.upload(("engine", "elevenlabs"))

    async def later(node: Node) -> None:
        (anna,) = await node.catalogue.voices()
        error = await error_of(await node.ask("DELETE", f"/voices/{anna.id}"), 502)
        assert "needs ELEVENLABS_API_KEY" in error["message"]
        assert await node.catalogue.voices() == [anna]

    check(test, tmp_path)
    check(later, tmp_path, ELEVENLABS_API_KEY="")


def test_a_voice_in_use_is_not_deleted_at_its_vendor(tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        anna = await (await node.upload(("engine", "elevenlabs"))).json()
        await node.ask("POST", "/agents", json={"name": "Bob", "voice": anna["id"]})
        await error_of(await node.ask("DELETE", f"/voices/{anna['id']}"), 409)
        assert len(node.vendors.elevenlabs.known) == 1

    check(test, tmp_path)


def test_of_two_who_send_the_same_voice_one_is_kept_everywhere(database_url: str, tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        uploads = [node.upload(("engine", "elevenlabs,cartesia")) for _ in range(3)]
        answers = await asyncio.gather(*uploads)
        assert sorted(answer.status for answer in answers) == [201, 409, 409]
        (anna,) = await node.catalogue.voices()
        assert set(node.vendors.elevenlabs.known) == {anna.engines["elevenlabs"]}
        assert set(node.vendors.cartesia.known) == {anna.engines["cartesia"]}
        assert [file.stem for file in node.samples.iterdir()] == [anna.sha256]

    asyncio.run(serve(test, database_url, tmp_path))


def test_whoever_leaves_while_a_vendor_works_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(node: Node) -> None:
        eleven = node.vendors.elevenlabs
        eleven.may_answer.clear()
        upload = asyncio.create_task(node.upload(("engine", "elevenlabs")))
        await eleven.begun.wait()
        upload.cancel()
        await asyncio.wait([upload])
        assert eleven.known == {}
        eleven.may_answer.set()
        await eleven.deleted.wait()
        await node.settled()
        assert node.nothing_is_kept()
        assert eleven.asked[1:] == ["DELETE /v1/voices/made-1"]
        assert await node.catalogue.voices() == []

    check(test, tmp_path)


def test_the_end_of_the_process_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kept_voices, "UNDO_S", 0.1)

    async def test(node: Node) -> None:
        eleven = node.vendors.elevenlabs
        eleven.may_answer.clear()
        upload = asyncio.create_task(node.upload(("engine", "elevenlabs")))
        await eleven.begun.wait()
        upload.cancel()
        await asyncio.wait([upload])
        asyncio.get_running_loop().call_later(1.0, eleven.may_answer.set)

    with caplog.at_level(logging.WARNING):
        check(test, tmp_path)
    assert "a voice was being made at elevenlabs and may be there: delete it by hand" in caplog.text


def test_an_upload_canceled_at_any_moment_is_whole_or_nothing(tmp_path: Path) -> None:
    """Whatever the moment: a voice with its sample and its vendor's voice, or none of the three."""

    async def test(node: Node) -> None:
        for delay_ms in range(0, 260, 20):
            upload = asyncio.create_task(node.upload(("engine", "elevenlabs"), name=f"Voice {delay_ms}"))
            await asyncio.sleep(0.001 * delay_ms + 0.25)
            upload.cancel()
            await asyncio.wait([upload])
        await node.settled()
        voices = await node.catalogue.voices()
        assert {voice.engines["elevenlabs"] for voice in voices} == set(node.vendors.elevenlabs.known)
        for voice in voices:
            assert (node.samples / f"{voice.sha256}.wav").is_file()

    check(test, tmp_path)
