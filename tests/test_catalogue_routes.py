"""``/agents`` and ``/voices`` as a client uses them: over HTTP, on a real database."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientResponse, ClientSession, FormData, web
from yarl import URL

from compat_ws import catalogue_routes, voice_routes
from compat_ws.backend import CATALOGUE
from media_server.server import new_runner
from pipeline.agents import SYSTEM_PROMPT
from pipeline.catalogue import Catalogue
from pipeline.voices import VoiceSamples
from signaling.errors import answer_errors
from tests.recordings import recording
from tests.service_server import error_of
from tests.sound_files import encoded, video, wav
from tests.test_catalogue import SPEECH

DEFAULT = {
    "id": "default",
    "name": "Ada",
    "system_prompt": SYSTEM_PROMPT,
    "greeting": "",
    "language": "en",
    "speed": 1.0,
    "voice": None,
    "allow_interruptions": True,
    "stt": None,
    "llm": None,
    "tts": None,
}
BOB = {**DEFAULT, "id": "bob", "name": "Bob", "greeting": "Hello.", "language": "de", "speed": 1.5, "llm": "echo"}


@dataclass
class Node:
    """A server with a catalogue, and a client of it."""

    url: str
    client: ClientSession
    catalogue: Catalogue

    async def ask(self, method: str, path: str, body: object = None, **options: Any) -> ClientResponse:
        """Send a request, with JSON unless there is none; the answer is read whole."""
        if body is not None:
            options["json"] = body
        response = await self.client.request(method, URL(self.url + path, encoded=True), **options)
        await response.read()
        return response

    async def upload(self, *fields: tuple[str, object]) -> ClientResponse:
        """Send a form to ``/voices``; bytes are files."""
        form = FormData(default_to_multipart=True)
        for name, value in fields:
            if isinstance(value, bytes):
                form.add_field(name, io.BytesIO(value), filename="voice")
            else:
                form.add_field(name, value)
        return await self.ask("POST", "/voices", data=form)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Node], Awaitable[None]]], None]:
    async def main(test: Callable[[Node], Awaitable[None]]) -> None:
        app = web.Application(middlewares=[answer_errors])
        catalogue_routes.add_routes(app.router)
        async with Catalogue(f"sqlite:///{tmp_path}/vocal.db", VoiceSamples(tmp_path / "voices")) as catalogue:
            app[CATALOGUE] = catalogue
            runner = new_runner(app)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                async with ClientSession() as client:
                    await test(Node(f"http://127.0.0.1:{runner.addresses[0][1]}", client, catalogue))
            finally:
                await runner.cleanup()

    return lambda test: asyncio.run(main(test))


Run = Callable[[Callable[[Node], Awaitable[None]]], None]


def test_agents_are_listed_shown_created_replaced_and_deleted(run: Run) -> None:
    async def test(node: Node) -> None:
        listed = await node.ask("GET", "/agents")
        assert (listed.status, await listed.json()) == (200, {"agents": [DEFAULT]})
        assert listed.headers["Cache-Control"] == "no-store"

        created = await node.ask("POST", "/agents", BOB)
        assert (created.status, created.headers["Location"], await created.json()) == (201, "/agents/bob", BOB)
        shown = await node.ask("GET", "/agents/bob")
        assert (shown.status, await shown.json()) == (200, BOB)
        assert [agent["id"] for agent in (await (await node.ask("GET", "/agents")).json())["agents"]] == [
            "default",
            "bob",
        ]

        replaced = await node.ask("PUT", "/agents/bob", {"name": "Robert"})
        assert (replaced.status, await replaced.json()) == (200, {**DEFAULT, "id": "bob", "name": "Robert"})
        assert await (await node.ask("GET", "/agents/bob")).json() == await replaced.json()
        assert (await node.catalogue.find({"agentId": "bob"})).name == "Robert"

        deleted = await node.ask("DELETE", "/agents/bob")
        assert (deleted.status, await deleted.read()) == (204, b"")
        assert (await error_of(await node.ask("GET", "/agents/bob"), 404))["param"] == "id"

    run(test)


def test_an_agent_needs_a_name_alone(run: Run) -> None:
    async def test(node: Node) -> None:
        for name, agent_id in [("José", "jose"), (" José\n", "jose-2")]:
            created = await node.ask("POST", "/agents", {"name": name})
            assert (created.status, created.headers["Location"]) == (201, f"/agents/{agent_id}")
            assert await created.json() == {**DEFAULT, "id": agent_id, "name": "José"}

    run(test)


def test_what_is_shown_can_be_put_back(run: Run) -> None:
    async def test(node: Node) -> None:
        shown = await (await node.ask("GET", "/agents/default")).json()
        assert (await node.ask("PUT", "/agents/default", {**shown, "greeting": "Hello."})).status == 200
        assert await (await node.ask("GET", "/agents/default")).json() == {**shown, "greeting": "Hello."}

    run(test)


def test_the_longest_prompt_fits_however_it_is_written(run: Run) -> None:
    async def test(node: Node) -> None:
        prompt = "\U0001f600" * 16_384
        body = json.dumps({"name": "Long", "system_prompt": prompt})  # 12 ASCII characters for each of these
        headers = {"Content-Type": "application/json"}
        assert (await node.ask("POST", "/agents", data=body, headers=headers)).status == 201
        assert (await node.catalogue.agent("long")).system_prompt == prompt

    run(test)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "B", "id": "a/b"}, "id"),
        ({"name": "B", "id": ".."}, "id"),
        ({"name": "B", "systemPrompt": "camel"}, "systemPrompt"),
        ({"name": "B", "speeed": 1}, "speeed"),
        ({"name": "B", "x" * 100_000: 1}, "x" * 64),
        ({"name": "B", "sample": "ff"}, "sample"),
        ({"name": "B", "speed": "fast"}, "speed"),
        ({"name": "B", "speed": 9}, "speed"),
        ({"name": "B", "language": "German"}, "language"),
        ({"name": "B", "system_prompt": "x" * 16_385}, "system_prompt"),
        ({"name": "B", "system_prompt": "a\x00b"}, "system_prompt"),
        ({"name": "B", "greeting": "x" * 1_001}, "greeting"),
        ({"name": "B", "voice": ""}, "voice"),
        ({"name": "B", "stt": "gpt-4o"}, "stt"),
        ({"name": "B", "llm": "../groq"}, "llm"),
        ({"name": "B", "tts": ""}, "tts"),
        ({"name": "B", "allow_interruptions": "no"}, "allow_interruptions"),
    ],
)
def test_what_is_wrong_with_an_agent_is_named(run: Run, body: dict[str, Any], param: str) -> None:
    async def test(node: Node) -> None:
        for method, path in (("POST", "/agents"), ("PUT", "/agents/default")):
            error = await error_of(await node.ask(method, path, body), 400)
            assert error["param"] == param
            assert len(error["message"]) < 500
        assert await (await node.ask("GET", "/agents")).json() == {"agents": [DEFAULT]}

    run(test)


def test_an_engine_that_is_not_there_is_told_which_are(run: Run) -> None:
    async def test(node: Node) -> None:
        error = await error_of(await node.ask("POST", "/agents", {"name": "B", "llm": "gpt-4o"}), 400)
        assert error["message"].startswith("llm: no such engine; known: ")
        assert "eliza" in error["message"]

    run(test)


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"name": "\xff"}', "application/json", 400),
        (b'{"name": "\\ud800"}', "application/json", 400),
        (b'{"name": "B"}', "text/plain", 415),
        (b'{"name": "' + b"x" * 10_000_000, "application/json", 413),
    ],
)
def test_what_is_no_agent_at_all(run: Run, content: bytes, content_type: str, status: int) -> None:
    async def test(node: Node) -> None:
        headers = {"Content-Type": content_type}
        await error_of(await node.ask("POST", "/agents", data=io.BytesIO(content), headers=headers), status)

    run(test)


def test_ids_do_not_collide_change_or_leave_their_place(run: Run) -> None:
    async def test(node: Node) -> None:
        taken = await error_of(await node.ask("POST", "/agents", DEFAULT), 409)
        assert (taken["param"], "PUT /agents/default replaces it" in taken["message"]) == ("id", True)
        assert (await error_of(await node.ask("PUT", "/agents/default", BOB), 400))["param"] == "id"
        for method in ("GET", "PUT", "DELETE"):
            for path in ("/agents/nobody", "/agents/..%2F..%2Fetc%2Fpasswd", "/agents/%00", f"/agents/{'x' * 2_000}"):
                error = await error_of(await node.ask(method, path, {"name": "B"}), 404)
                assert "POST /agents" in error["message"]
                assert len(error["message"]) < 500
        await error_of(await node.ask("PATCH", "/agents/default", {}), 405)

    run(test)


# --- voices


def test_a_voice_is_uploaded_listed_heard_and_deleted(run: Run) -> None:
    async def test(node: Node) -> None:
        created = await node.upload(("name", "Anna"), ("file", SPEECH))
        anna = await created.json()
        assert (created.status, created.headers["Location"]) == (201, f"/voices/{anna['id']}")
        assert list(anna) == ["id", "name", "duration_s", "sha256", "engines"]
        assert anna == asdict(await node.catalogue.voice(anna["id"]))
        assert (anna["name"], anna["duration_s"]) == ("Anna", pytest.approx(5.2, abs=0.01))
        assert await (await node.ask("GET", "/voices")).json() == {"voices": [anna]}

        heard = await node.ask("GET", f"/voices/{anna['id']}/sample")
        assert (heard.status, heard.content_type) == (200, "audio/wav")
        assert heard.headers["Cache-Control"] == "private, max-age=3600"
        with wave.open(io.BytesIO(await heard.read())) as file:
            assert file.getnframes() / file.getframerate() == pytest.approx(anna["duration_s"], abs=0.001)

        assert (await node.ask("DELETE", f"/voices/{anna['id']}")).status == 204
        assert await (await node.ask("GET", "/voices")).json() == {"voices": []}
        for method, path in (("DELETE", ""), ("GET", "/sample")):
            await error_of(await node.ask(method, f"/voices/{anna['id']}{path}"), 404)
        await error_of(await node.ask("DELETE", "/voices/..%2Fvocal.db"), 404)
        await error_of(await node.ask("GET", "/voices/..%2Fvocal.db/sample"), 404)

    run(test)


def test_an_agent_gets_a_voice_and_keeps_it(run: Run) -> None:
    async def test(node: Node) -> None:
        anna = await (await node.upload(("file", SPEECH), ("name", "Anna"))).json()
        assert (await node.ask("POST", "/agents", {"name": "Bob", "voice": anna["id"]})).status == 201
        assert (await (await node.ask("GET", "/agents/bob")).json())["voice"] == anna["id"]
        assert (await node.catalogue.find({"agent": "bob"})).sample == anna["sha256"]
        error = await error_of(await node.ask("DELETE", f"/voices/{anna['id']}"), 409)
        assert "bob" in error["message"]
        assert (await node.ask("DELETE", "/agents/bob")).status == 204
        assert (await node.ask("DELETE", f"/voices/{anna['id']}")).status == 204

    run(test)


@pytest.mark.parametrize("kind", ["flac", "mp3", "webm", "m4a"])
def test_any_container_will_do(run: Run, kind: str) -> None:
    async def test(node: Node) -> None:
        source = encoded(np.tile(recording("austen-0880.wav"), 2), kind)
        assert (await node.upload(("name", kind), ("audio_file", source))).status == 201

    run(test)


def test_what_is_no_voice_is_told_apart(run: Run) -> None:
    speech = recording("austen-0880.wav")
    uploads: list[tuple[int, str, list[tuple[str, object]]]] = [
        (400, "file", [("name", "A")]),
        (400, "name", [("file", SPEECH)]),
        (400, "name", [("name", "x" * 201), ("file", SPEECH)]),
        (400, "nmae", [("nmae", "A"), ("name", "A"), ("file", SPEECH)]),
        (400, "file", [("name", "A"), ("file", b"")]),
        (400, "file", [("name", "A"), ("file", SPEECH), ("file", SPEECH)]),
        (400, "file", [("name", "A"), ("file", SPEECH[:60_000])]),
        (413, "file", [("name", "A"), ("file", wav(np.tile(speech, 11)))]),
        (413, "file", [("name", "A"), ("file", bytes(30_000_000))]),
        (413, "name", [("name", "x" * 20_000), ("file", SPEECH)]),
        (415, "file", [("name", "A"), ("file", b"no sound at all" * 1_000)]),
        (415, "file", [("name", "A"), ("file", video(speech))]),
        (422, "file", [("name", "A"), ("file", wav(speech))]),
        (422, "file", [("name", "A"), ("file", wav(np.tile(speech, 2) // 1_000))]),
    ]

    async def test(node: Node) -> None:
        for status, param, fields in uploads:
            error = await error_of(await node.upload(*fields), status)
            assert error["param"] == param
        await error_of(await node.ask("POST", "/voices", {"name": "A"}), 415)
        assert (await node.upload(("name", "A"), ("file", SPEECH))).status == 201
        await error_of(await node.upload(("name", "A"), ("file", SPEECH)), 409)
        assert len(await node.catalogue.voices()) == 1

    run(test)


def test_few_voices_are_uploaded_at_once(run: Run) -> None:
    async def test(node: Node) -> None:
        may_end = asyncio.Event()
        begun = asyncio.Semaphore(0)

        async def slowly() -> Any:
            yield b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nA\r\n'
            begun.release()
            await may_end.wait()
            yield b"--b--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        async with asyncio.TaskGroup() as uploads:
            slow = [
                uploads.create_task(node.ask("POST", "/voices", data=slowly(), headers=headers))
                for _ in range(voice_routes.MAX_UPLOADS)
            ]
            for _ in slow:
                await begun.acquire()
            while (refused := await node.upload(("name", "A"), ("file", b"x"))).status != 503:
                assert refused.status == 415  # one of them has not arrived yet
            assert refused.headers["Retry-After"]
            may_end.set()
        assert [(await error_of(upload.result(), 400))["param"] for upload in slow] == ["file"] * len(slow)
        assert (await node.upload(("name", "A"), ("file", SPEECH))).status == 201

    run(test)
