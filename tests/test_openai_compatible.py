"""The engines that are elsewhere, against real servers on loopback: what they say, what they bear, when they stop."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import time
import wave
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from compat_ws.multipart import FormParser, Part, boundary_of
from pipeline import engines, remote, remote_answer
from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm, silence
from pipeline.engines import Kind, choose, load
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.event_stream import EVENT_MAX_BYTES
from pipeline.events import Message, Transcript
from pipeline.remote_errors import Dropped
from pipeline.stt import openai_compatible
from pipeline.tasks import closing

from .api_server import OTHERS, OURS, Answer, ApiServer, api_server, delta, event, never, replies, streams, wire_server
from .canary import KEY
from .recordings import in_frames, recording

KINDS: tuple[Kind, ...] = ("stt", "llm", "tts")
ASKED = [Message("system", "Be kind."), Message("user", "I need a cup of tea.")]
SAMPLE = "sample:" + "0" * 64
LIMIT_S = 20.0
STOPPED_S = 3.0
"""Within which a server must have seen that its client left; it takes a millisecond."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the end of an answer as long as a busy machine may take, where its connection is to be used again."""
    monkeypatch.setattr(remote_answer, "DRAIN_S", STOPPED_S)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run; tasks left over and a default executor are errors."""

    async def tidy() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None

    asyncio.run(tidy())


@asynccontextmanager
async def engine(kind: Kind, url: str, **settings: str) -> AsyncIterator[Any]:
    """Create the engine of this kind for a URL; settings are named without ``VOCAL_`` and the kind."""
    prefix = f"VOCAL_{kind.upper()}_"
    created = load(kind, "openai_compatible", {f"{prefix}{k}": v for k, v in {"URL": url, **settings}.items()})
    try:
        yield created
    finally:
        await engines.aclose(created)


def use(kind: Kind, created: Any) -> AsyncIterator[Any]:
    """Ask something of it, whatever it is."""
    match kind:
        case "llm":
            return created.complete(ASKED)  # type: ignore[no-any-return]
        case "tts":
            return created.synthesize("Hello.", None, "en", 1.0)  # type: ignore[no-any-return]
        case _:
            return created.transcribe(in_frames(silence(640)), "en")  # type: ignore[no-any-return]


async def whole(kind: Kind, created: Any) -> Any:
    """Return what it gives, joined."""
    items = [item async for item in use(kind, created)]
    match kind:
        case "llm":
            return "".join(items)
        case "tts":
            return b"".join(pcm.tobytes() for pcm in items)
        case _:
            return items[-1].text


GOOD: dict[Kind, tuple[Answer, Any]] = {
    "stt": (replies({"text": "tea"}), "tea"),
    "llm": (streams(delta("te"), delta("a"), delta(None, "stop"), event("[DONE]")), "tea"),
    "tts": (streams(b"te", b"a!", content_type="audio/pcm"), b"tea!"),
}


@asynccontextmanager
async def asked(kind: Kind, answer: Answer | None = None, **settings: str) -> AsyncIterator[tuple[ApiServer, Any]]:
    """Serve, and yield the server with an engine that asks it."""
    async with api_server(answer or GOOD[kind][0]) as server, engine(kind, server.url, **settings) as created:
        yield server, created


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def collect(items: AsyncIterator[Any], into: list[Any]) -> None:
    """Take all there is, also where it ends in an error."""
    async for item in items:
        into.append(item)  # noqa: PERF401 - what came before an error counts


async def error_of(kind: Kind, created: Any) -> str:
    with pytest.raises(EngineError) as raised:
        await whole(kind, created)
    return str(raised.value)


FIRST: dict[Kind, bytes] = {"stt": b'{"te', "llm": delta("te"), "tts": b"te"}
TYPES: dict[Kind, str] = {"stt": "application/json", "llm": "text/event-stream", "tts": "audio/pcm"}

each = pytest.mark.parametrize("kind", KINDS)


# --- settings


@each
def test_without_a_url_it_is_not_there_and_with_one_it_is_the_best(kind: Kind) -> None:
    variable = f"VOCAL_{kind.upper()}_URL"
    assert engines.module(kind, "openai_compatible").describe({}).lacks == variable
    with pytest.raises(EngineUnavailable, match=variable):
        load(kind, "openai_compatible", {variable: " "})
    chosen = choose(kind, "auto", {variable: "http://127.0.0.1:1"})
    assert chosen.name == "openai_compatible"
    assert chosen.why == f"{kind} openai_compatible: an OpenAI-compatible server, http://127.0.0.1:1/v1"
    engines.close(chosen.engine)


BASES = {
    "http://127.0.0.1:8003": "http://127.0.0.1:8003/v1",
    " http://127.0.0.1:8003/v1/ ": "http://127.0.0.1:8003/v1",
    "https://[::1]:8003/v1": "https://[::1]:8003/v1",
    "https://api.example.org/openai": "https://api.example.org/openai/v1",
    "https://api.example.org/openai/v1": "https://api.example.org/openai/v1",
    "https://api.example.org/v1beta/openai/": "https://api.example.org/v1beta/openai",
}


@pytest.mark.parametrize("url", BASES)
def test_a_base_url_may_name_its_version_or_not(url: str) -> None:
    note = engines.module("llm", "openai_compatible").describe({"VOCAL_LLM_URL": url}).note
    assert note.endswith(f", {BASES[url]}")


NO_BASES = (
    "127.0.0.1:8003 ftp://host http:// http://host:99999 http://[::1 http://h/?a=b http://h/#x "
    "http://me:secret@host http://ho\tst /v1 http://host:0 http://höst"
)


@pytest.mark.parametrize("url", NO_BASES.split(" "))
def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    found = engines.module("tts", "openai_compatible").describe({"VOCAL_TTS_URL": url})
    assert found.lacks is not None and found.lacks.startswith("VOCAL_TTS_URL ") and "secret" not in found.lacks


UNUSABLE = [
    *[("FIRST_S", "soon"), ("NEXT_S", "0"), ("CONNECT_S", "-1"), ("API_KEY", "a b"), ("API_KEY", "a\r\nHost: b")],
    *[("EXTRA", "[]"), ("EXTRA", "{"), ("TEMPERATURE", "hot"), ("MAX_TOKENS", "0")],
]


@pytest.mark.parametrize(("name", "value"), UNUSABLE)
def test_a_setting_that_is_not_usable_is_named_and_a_key_never_shown(name: str, value: str) -> None:
    with pytest.raises(EngineUnavailable, match=f"VOCAL_LLM_{name}") as raised:
        load("llm", "openai_compatible", {"VOCAL_LLM_URL": "http://127.0.0.1:1", f"VOCAL_LLM_{name}": value})
    assert name != "API_KEY" or value not in str(raised.value)


@each
def test_creating_asks_no_network(kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        settings = {f"VOCAL_{kind.upper()}_URL": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        engines.module(kind, "openai_compatible").describe(settings)
        engines.close(load(kind, "openai_compatible", settings))
        with pytest.raises(TimeoutError):
            listener.accept()


# --- any kind: keys, connections, errors


@each
def test_a_key_goes_where_it_belongs_and_no_other_key_does(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCAL_API_KEYS", "ours")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def main() -> None:
        async with asked(kind) as (server, created):
            assert await whole(kind, created) == GOOD[kind][1]
            assert all("Authorization" not in headers for headers in server.headers)
        async with asked(kind, API_KEY="theirs") as (server, created):
            assert await whole(kind, created) == GOOD[kind][1]
            assert {headers["Authorization"] for headers in server.headers} == {"Bearer theirs"}
            assert "theirs" not in repr(created._remote.server)

    run(main())


@pytest.mark.usefixtures("patience")
@each
def test_one_connection_serves_one_request_after_the_other(kind: Kind) -> None:
    async def main() -> None:
        async with asked(kind) as (server, created):
            for _ in range(5):
                assert await whole(kind, created) == GOOD[kind][1]
            assert len(set(server.peers)) == 1
            assert server.requests[0] == "GET /v1/models" and server.posts == 5 == len(server.requests) - 1

    run(main())


@each
def test_several_ask_at_once(kind: Kind) -> None:
    async def main() -> None:
        async with asked(kind) as (_, created):
            answers = await asyncio.gather(*(whole(kind, created) for _ in range(20)))
            assert answers == [GOOD[kind][1]] * 20

    run(main())


@each
def test_a_host_name_is_looked_up_off_the_loop_and_its_default_executor(kind: Kind) -> None:
    async def main() -> None:
        port = free_port()
        served = api_server(GOOD[kind][0], port=port)
        async with served, engine(kind, f"http://localhost:{port}") as created:
            assert await whole(kind, created) == GOOD[kind][1]
        async with engine(kind, "http://nobody.invalid") as created:
            assert await error_of(kind, created) == (
                f"the {kind} server (VOCAL_{kind.upper()}_URL) cannot be found: nobody knows its host name"
            )

    run(main())


@each
def test_it_works_in_one_loop_after_the_other(kind: Kind) -> None:
    async def main(created: Any) -> None:
        async with api_server(GOOD[kind][0], port=port):
            assert await whole(kind, created) == GOOD[kind][1]
            await created.aclose()

    port = free_port()
    created = load(kind, "openai_compatible", {f"VOCAL_{kind.upper()}_URL": f"http://127.0.0.1:{port}"})
    for _ in range(2):
        run(main(created))
    engines.close(created)


REFUSALS: dict[int, str] = {
    401: "does not take the key in VOCAL_{kind}_API_KEY (HTTP 401)",
    403: "does not take the key in VOCAL_{kind}_API_KEY (HTTP 403)",
    404: "has no such address or model (HTTP 404: it broke): check VOCAL_{kind}_URL and VOCAL_{kind}_MODEL",
    413: "takes no request as long as this one (HTTP 413)",
    422: "refused the request (HTTP 422: it broke)",
    429: "was asked too much or its quota is used up (HTTP 429: it broke); it asks to wait 7 s",
    500: "failed (HTTP 500: it broke)",
    503: "failed (HTTP 503: it broke); it asks to wait 7 s",
    307: "redirects (HTTP 307): name the address it redirects to",
}


@each
@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_told_in_words_and_not_repeated(kind: Kind, status: int) -> None:
    headers = {"Retry-After": "7"} if status in (429, 503) else {"Location": "/elsewhere"} if status == 307 else {}

    async def main() -> None:
        async with asked(kind, replies({"error": {"message": "it broke"}}, status, **headers)) as (server, created):
            wanted = REFUSALS[status].format(kind=kind.upper())
            assert await error_of(kind, created) == f"the {kind} server (VOCAL_{kind.upper()}_URL) {wanted}"
            assert server.posts == 1 and not any("elsewhere" in request for request in server.requests)

    run(main())


COMPLAINTS = {
    '{"error": {"message": "I need a cup of tea. is too long", "code": 1}}': ": ... is too long",
    '{"error": "plain"}': ": plain",
    '{"message": "m\\u0000\\n  n"}': ": m n",
    '{"detail": [{"loc": ["body"], "msg": "bad field", "input": "I need a cup of tea."}]}': ": bad field",
    f'{{"error": {{"message": "the key {KEY} is old"}}}}': ": the key ... is old",
    '{"error": {"message": "' + "x" * 5000 + '"}}': ": " + "x" * 200 + "...",
    '{"error": ' * 200 + "1" + "}" * 200: "",
    "[" * 100_000: "",
    "<html>I need a cup of tea.</html>": "",
    '{"error": 7}': "",
    "": "",
}


@pytest.mark.parametrize("body", COMPLAINTS, ids=range(len(COMPLAINTS)))
def test_what_a_server_complains_of_is_quoted_briefly_and_without_what_it_was_told(body: str) -> None:
    async def main() -> None:
        async with asked("llm", replies(body, 400), API_KEY=KEY) as (_, created):
            message = await error_of("llm", created)
            assert message == f"the llm server (VOCAL_LLM_URL) refused the request (HTTP 400{COMPLAINTS[body]})"

    run(main())


@each
def test_a_web_page_is_no_answer(kind: Kind) -> None:
    async def main() -> None:
        async with asked(kind, replies("<html>hello</html>", Content_Type="text/html; charset=utf-8")) as (_, created):
            assert f"answered with a web page: check VOCAL_{kind.upper()}_URL" in await error_of(kind, created)

    run(main())


@each
def test_a_server_that_speaks_no_http_is_told(kind: Kind) -> None:
    async def talk(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")

    async def main() -> None:
        async with wire_server(talk) as url, engine(kind, url, MODEL="m") as created:
            assert "does not answer as HTTP prescribes" in await error_of(kind, created)

    run(main())


@each
def test_where_nobody_listens_it_asks_once_more_a_moment_later(kind: Kind) -> None:
    async def main() -> None:
        port = free_port()
        async with engine(kind, f"http://127.0.0.1:{port}") as created:
            assert "does not listen: is it running?" in await error_of(kind, created)
            asking = asyncio.create_task(whole(kind, created))
            await asyncio.sleep(0.1)
            async with api_server(GOOD[kind][0], port=port) as server:
                assert await asking == GOOD[kind][1]
                assert server.posts == 1

    run(main())


def whole_answer(kind: Kind) -> bytes:
    """Return a good answer as it goes over the wire."""
    body = {"stt": b'{"text": "tea"}', "llm": delta("tea", "stop"), "tts": b"tea!"}[kind]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {TYPES[kind]}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@each
@pytest.mark.parametrize("how", ["closed", "reset", "half a header", "half a body"])
def test_a_connection_that_drops_before_anything_came_is_replaced_once(kind: Kind, how: str) -> None:
    """The usual race of keep-alive: the server closes just as the next request is on its way."""
    begun = {"closed": b"", "reset": b"", "half a header": whole_answer(kind)[:20], "half a body": b""}[how]
    seen: list[int] = []

    async def talk(number: int, writer: asyncio.StreamWriter) -> None:
        seen.append(number)
        if number in dropped:
            writer.write(whole_answer(kind).partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if how == "half a body" else begun)
            writer.transport.abort() if how == "reset" else writer.close()
        else:
            writer.write(whole_answer(kind))

    async def main() -> None:
        async with wire_server(talk) as url, engine(kind, url, MODEL="m") as created:
            assert [await whole(kind, created) for _ in range(3)] == [GOOD[kind][1]] * 3
            assert "dropped the connection" in await error_of(kind, created)
            assert await whole(kind, created) == GOOD[kind][1]
            assert seen == [0, 1, 2, 3, 4, 5, 6]

    dropped = {1, 4, 5}
    run(main())


@pytest.mark.parametrize("kind", ["llm", "tts"])
def test_a_connection_that_drops_after_something_came_is_an_error(kind: Kind) -> None:
    seen: list[int] = []

    async def talk(number: int, writer: asyncio.StreamWriter) -> None:
        seen.append(number)
        piece = delta("te") if kind == "llm" else b"te"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.transport.abort()

    async def main() -> None:
        async with wire_server(talk) as url, engine(kind, url, MODEL="m") as created:
            given: list[Any] = []
            with pytest.raises(Dropped, match="dropped the connection"):
                await collect(use(kind, created), given)
            assert len(given) == 1 and seen == [0]

    run(main())


# --- any kind: time


@each
@pytest.mark.parametrize("headers", [False, True])
def test_a_first_item_that_does_not_come_is_an_error(kind: Kind, headers: bool) -> None:
    async def main() -> None:
        silent = streams(content_type=TYPES[kind], ends=False)
        async with asked(kind, silent if headers else never, FIRST_S="0.4") as (server, created):
            assert await error_of(kind, created) == (
                f"the {kind} server (VOCAL_{kind.upper()}_URL) gave nothing for 0.4 s; try again later"
            )
            assert server.posts == 1
            await asyncio.wait_for(server.gone.wait(), STOPPED_S)

    run(main())


@pytest.mark.parametrize("kind", ["llm", "tts"])
def test_a_next_item_that_does_not_come_is_an_error_and_comments_are_none(kind: Kind) -> None:
    async def main() -> None:
        waiting = [b": wait\n\n"] * 1000 if kind == "llm" else []
        answer = streams(FIRST[kind], *waiting, content_type=TYPES[kind], ends=False)
        async with asked(kind, answer, NEXT_S="0.05") as (_, created):
            assert "gave nothing for 0.05 s" in await error_of(kind, created)

    run(main())


@pytest.mark.parametrize("kind", ["llm", "tts"])
def test_time_that_the_listener_takes_is_not_the_servers(kind: Kind) -> None:
    async def main() -> None:
        async with asked(kind, FIRST_S="0.5", NEXT_S="0.5") as (_, created):
            given = []
            async for item in use(kind, created):
                given.append(item)
                await asyncio.sleep(0.6)
            assert given

    run(main())


def test_a_server_may_take_its_time_from_one_item_to_the_next() -> None:
    async def main() -> None:
        async with asked("llm", slowly, FIRST_S="1", NEXT_S="1") as (_, created):
            assert await whole("llm", created) == "a b c d "

    async def slowly(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse()
        for word in "abcd":
            await asyncio.sleep(0.3)  # four of them are longer than any one may be
            if not response.prepared:
                await response.prepare(request)
            await response.write(delta(f"{word} ", "stop" if word == "d" else None))
        return response

    run(main())


def test_a_server_that_takes_no_connection_is_told() -> None:
    async def main() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)  # whose queue is soon full: further connections get no answer
            address = listener.getsockname()
            waiting = [socket.socket() for _ in range(3)]
            try:
                for one in waiting:
                    one.setblocking(False)
                    one.connect_ex(address)
                async with engine("llm", f"http://127.0.0.1:{address[1]}", MODEL="m", CONNECT_S="0.1") as created:
                    assert "did not take a connection within 0.1 s" in await error_of("llm", created)
            finally:
                for one in waiting:
                    one.close()

    run(main())


# --- any kind: stopping


@each
@pytest.mark.parametrize("when", ["nothing came", "headers came", "something came"])
def test_leaving_ends_the_request_at_once(kind: Kind, when: str) -> None:
    reached = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        if when != "nothing came":
            response = web.StreamResponse(headers={"Content-Type": TYPES[kind]})
            await response.prepare(request)
            if when == "something came":
                await response.write(FIRST[kind])
        reached.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def main() -> None:
        async with asked(kind, answer) as (server, created):
            leaving = asyncio.create_task(whole(kind, created))
            await reached.wait()
            await asyncio.sleep(0.02)
            began_s = time.perf_counter()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            left_s = time.perf_counter() - began_s
            await server.gone.wait()
            assert time.perf_counter() - began_s < STOPPED_S and left_s < STOPPED_S

    run(main())


@pytest.mark.parametrize("kind", ["llm", "tts"])
def test_closing_the_iterator_ends_the_request_at_once(kind: Kind) -> None:
    async def main() -> None:
        async with asked(kind, streams(*[FIRST[kind]] * 3, content_type=TYPES[kind], ends=False)) as (server, created):
            async with closing(use(kind, created)) as items:
                await anext(items)
            began_s = time.perf_counter()
            await server.gone.wait()
            assert time.perf_counter() - began_s < STOPPED_S
            server.answer = GOOD[kind][0]
            assert await whole(kind, created) == GOOD[kind][1]

    run(main())


# --- readiness


@pytest.mark.usefixtures("patience")
def test_a_server_is_ready_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with asked("tts") as (server, created):
            assert [await created.ready() for _ in range(3)] == [None] * 3
            assert server.requests == ["GET /v1/models"]
            assert await whole("tts", created) == b"tea!"
            assert len(server.requests) == 2 and len(set(server.peers)) == 1  # warmed, and known by now
            monkeypatch.setattr(remote, "READY_KEPT_S", 0.0)
            for status, reason in {401: "does not take the key", 503: "failed (HTTP 503", 404: None}.items():
                server.models = replies("", status)
                said = await created.ready()
                assert reason in said if reason else said is None
        async with engine("tts", server.url) as created:
            assert "does not listen" in await created.ready()

    run(main())


def test_a_server_that_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "READY_S", 0.05)

    async def main() -> None:
        async with asked("llm") as (server, created):
            server.models = never
            assert await created.ready() == "the llm server (VOCAL_LLM_URL) gave nothing for 0.05 s; try again later"
            await asyncio.wait_for(server.gone.wait(), STOPPED_S)

    run(main())


PAUSES = {"data": [{"id": "anything", "owned_by": "vocal-node", "hears_pauses": True}]}


def test_what_a_server_said_of_itself_stands_until_it_says_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "READY_KEPT_S", 0.0)
    unwell = replies("", 503)

    async def main() -> None:
        async with api_server(unwell, PAUSES) as server, engine("stt", server.url, MODEL="one") as stt:
            assert await stt.ready() is None and stt.hears_pauses
            server.models = unwell
            assert "HTTP 503" in await error_of("stt", stt) and stt.hears_pauses, "a request failed"
            assert "HTTP 503" in await stt.ready() and stt.hears_pauses, "a probe failed"
            assert "HTTP 503" in await error_of("stt", stt) and stt.hears_pauses, "and so did asking it once more"
            server.models = OTHERS
            assert "HTTP 503" in await error_of("stt", stt) and not stt.hears_pauses
            server.models = PAUSES
            assert await stt.ready() is None and stt.hears_pauses

    run(main())


# --- llm


def noting(answer: Answer, bodies: list[Any]) -> Answer:
    """Answer likewise, and note the JSON that was sent."""

    async def note(request: web.Request) -> web.StreamResponse:
        bodies.append(json.loads(await request.read()))
        return await answer(request)

    return note


def test_llm_asks_in_openais_words() -> None:
    async def main() -> None:
        bodies: list[Any] = []
        extra = '{"top_p": 0.9, "stream": false}'
        async with asked("llm", MODEL="big", TEMPERATURE="0.7", MAX_TOKENS="60", EXTRA=extra) as (server, created):
            server.answer = noting(GOOD["llm"][0], bodies)
            assert await whole("llm", created) == "tea"
            assert server.requests == ["POST /v1/chat/completions"]
        messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "I need a cup of tea."}]
        sampling = {"temperature": 0.7, "max_tokens": 60, "top_p": 0.9}
        assert bodies == [{"model": "big", "messages": messages, "stream": True, **sampling}]

    run(main())


@pytest.mark.parametrize(("listed", "wanted"), [(OTHERS, "first"), (OURS, "default")])
def test_llm_asks_for_the_first_model_and_leaves_the_choice_to_ours(listed: Mapping[str, Any], wanted: str) -> None:
    async def main() -> None:
        bodies: list[Any] = []
        async with asked("llm") as (server, created):
            server.models = listed
            server.answer = noting(GOOD["llm"][0], bodies)
            assert await whole("llm", created) == "tea"
            assert bodies == [{**bodies[0], "model": wanted}]

    run(main())


@pytest.mark.parametrize("models", [{"data": []}, {"data": None}, {}, {"data": [1]}, {"data": [{}]}])
def test_llm_without_a_model_says_what_to_set(models: Mapping[str, Any]) -> None:
    async def main() -> None:
        async with asked("llm") as (server, created):
            server.models = models
            wanted = "the llm server (VOCAL_LLM_URL) lists no models: name one in VOCAL_LLM_MODEL"
            assert await error_of("llm", created) == wanted
            server.models = replies("not a list")
            assert await error_of("llm", created) == wanted

    run(main())


def choices(*found: object) -> bytes:
    return event({"choices": list(found)})


SPOKEN = {
    "a role first": choices({"delta": {"role": "assistant", "content": ""}}) + delta("tea", "stop"),
    "counts last": delta("tea") + delta(None, "stop") + choices() + event({"choices": None, "usage": {"total": 1}}),
    "reasoning": choices({"delta": {"reasoning_content": "hm", "reasoning": "hm"}}) + delta("tea", "stop"),
    "no delta": choices({"delta": None}) + choices({}) + delta("tea", "stop"),
    "cut at a length": delta("tea", "length"),
    "the end alone": delta("tea") + event("[DONE]"),
    "no blank line at the end": delta("tea") + b"data: [DONE]",
    "comments and line ends": b": hello\r\n\r\n" + delta("tea", "stop").replace(b"\n", b"\r\n") + b": bye\r\n",
    "lines of one event": b'data: {"choices": [{"delta":\ndata: {"content": "tea"}, "finish_reason": "stop"}]}\n\n',
    "half a character": delta("te", None)
    + event('{"choices": [{"delta": {"content": "\\ud83d"}}]}')
    + delta("a", "stop"),
    "more after the end": delta("tea", "stop") + event("[DONE]") + event("garbage"),
}


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "text/plain", "application/octet-stream"])
def test_llm_understands_the_streams_that_servers_send(name: str, content_type: str) -> None:
    async def main() -> None:
        octets = SPOKEN[name]
        halves = [octets[: len(octets) // 2], octets[len(octets) // 2 :]]
        async with asked("llm", streams(*halves, content_type=content_type), MODEL="m") as (server, created):
            heard = [await whole("llm", created) for _ in range(2)]
            assert [text.replace("?", "") for text in heard] == ["tea", "tea"]
            assert len(set(server.peers)) == 1

    run(main())


def test_llm_understands_a_server_that_answers_in_one_piece() -> None:
    async def main() -> None:
        async with asked("llm", replies({"choices": [{"message": {"content": "a cup of tea"}}]})) as (_, created):
            assert await whole("llm", created) == "a cup of tea"

    run(main())


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cut its answer short"),
    "half an answer": (delta("te"), "cut its answer short"),
    "an empty reason": (choices({"delta": {"content": "te"}, "finish_reason": ""}), "cut its answer short"),
    "an error": (delta("te") + event({"error": {"message": "no memory"}}), "failed: no memory"),
    "an error alone": (event({"error": "no memory"}), "failed: no memory"),
    "an older error": (event({"object": "error", "message": "no memory"}), "failed: no memory"),
    "an error of the asker": (event({"error": {"message": "I need a cup of tea.?"}}), "failed: ...?"),
    "an empty error": (event({"error": {"code": 7}}), "failed: it does not say why"),
    "no JSON": (event("tea"), "sent something else than a JSON object"),
    "no object": (event([1]), "sent something else than a JSON object"),
    "deep JSON": (event("[" * 100_000), "sent something else than a JSON object"),
    "wrong choices": (event({"choices": 7}), "sent no text where"),
    "a wrong choice": (choices("tea"), "sent no text where"),
    "a wrong delta": (choices({"delta": "tea"}), "sent no text where"),
    "a wrong text": (delta(["tea"]), "sent no text where"),
    "a long line": (b"data: " + b"x" * 2 * EVENT_MAX_BYTES, "longer than"),
    "a long event": ((b"data: " + b"x" * 1000 + b"\n") * (EVENT_MAX_BYTES // 500), "longer than"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_llm_says_what_is_wrong_with_a_stream(name: str) -> None:
    async def main() -> None:
        async with asked("llm", streams(BROKEN[name][0])) as (server, created):
            assert BROKEN[name][1] in await error_of("llm", created)
            assert server.posts == 1
            server.answer = GOOD["llm"][0]
            assert await whole("llm", created) == "tea"

    run(main())


BROKEN_WHOLE = {
    '{"error": {"message": "no memory"}}': "failed: no memory",
    "{": "something else than a JSON object",
    '{"choices": "x"}': "sent no text",
    " " * 1_100_000: "answered with more than 1048576 bytes",
}


@pytest.mark.parametrize("body", BROKEN_WHOLE, ids=range(len(BROKEN_WHOLE)))
def test_llm_says_what_is_wrong_with_an_answer_in_one_piece(body: str) -> None:
    async def main() -> None:
        async with asked("llm", replies(body, Content_Type="application/json")) as (_, created):
            assert BROKEN_WHOLE[body] in await error_of("llm", created)

    run(main())


def test_llm_does_not_wait_for_a_body_that_goes_on_after_its_end() -> None:
    async def main() -> None:
        async with asked("llm", streams(delta("tea", "stop"), event("[DONE]"), ends=False)) as (server, created):
            assert await whole("llm", created) == "tea"
            await asyncio.wait_for(server.gone.wait(), STOPPED_S)

    run(main())


# --- tts


async def speech(tts: Any, clause: str = "Hello.", voice: str | None = None, speed: float = 1.0) -> Pcm:
    pieces = [pcm async for pcm in tts.synthesize(clause, voice, "de", speed)]
    assert all(pcm.dtype == np.int16 and pcm.ndim == 1 and len(pcm) for pcm in pieces)
    return np.concatenate([silence(0), *pieces])


def test_tts_asks_in_openais_words_and_ours_for_the_language_too() -> None:
    async def main() -> None:
        bodies: list[Any] = []
        asking = {"input": "Hello.", "response_format": "pcm"}
        async with asked("tts") as (server, created):
            server.answer = noting(GOOD["tts"][0], bodies)
            assert created.clones and created.rate_hz == 24_000
            for voice, speed in ((None, 1.0), ("nova", 9.0), (SAMPLE, 0.1)):
                await speech(created, voice=voice, speed=speed)
            assert bodies == [
                {"model": "first", "voice": "alloy", "speed": 1.0, **asking},
                {"model": "first", "voice": "nova", "speed": 4.0, **asking},
                {"model": "first", "voice": "alloy", "speed": 0.25, **asking},
            ]
            assert not created.clones  # known by now
        async with asked("tts") as (server, created):
            bodies.clear()
            server.models = OURS
            server.answer = noting(GOOD["tts"][0], bodies)
            for voice in (None, SAMPLE, ""):
                await speech(created, voice=voice)
            assert created.clones
            assert [body["voice"] for body in bodies] == ["default", SAMPLE, ""]
            assert bodies[0] == {"model": "default", "voice": "default", "speed": 1.0, "language": "de", **asking}

    run(main())


def test_tts_names_the_reply_to_a_service_of_ours_alone() -> None:
    async def tell(tts: Any) -> None:
        async with aclosing(tts.open(None, "de", 1.0)) as reply:
            for clause in ("Hello.", "Good bye."):
                async with closing(reply.speak(clause)) as sound:
                    assert [pcm async for pcm in sound]

    async def main() -> None:
        bodies: list[Any] = []
        async with asked("tts") as (server, created):
            server.answer = noting(GOOD["tts"][0], bodies)
            await tell(created)
            assert len(bodies) == 2 and not any("context" in body for body in bodies)
        async with asked("tts") as (server, created):
            bodies.clear()
            server.models = OURS
            server.answer = noting(GOOD["tts"][0], bodies)
            await tell(created)
            await tell(created)
            await speech(created)
            first, again, second, _, alone = (body.get("context") for body in bodies)
            assert first == again != second and re.fullmatch(r"[0-9a-f]{32}", first) and alone is None

    run(main())


def test_tts_has_a_voice_of_the_operators_choice() -> None:
    async def main() -> None:
        bodies: list[Any] = []
        async with asked("tts", VOICE="onyx", MODEL="tts-1") as (server, created):
            server.answer = noting(GOOD["tts"][0], bodies)
            await speech(created)
            await speech(created, voice=SAMPLE)
            assert [body["voice"] for body in bodies] == ["onyx", "onyx"]

    run(main())


@pytest.mark.parametrize("size", [1, 3, 5, 1023, 4096])
def test_tts_joins_samples_that_were_cut_in_half(size: int) -> None:
    pcm = recording("go-forward.wav")[:4000]
    octets = pcm.tobytes()
    cut = [octets[i : i + size] for i in range(0, len(octets), size)][:300]

    async def main() -> None:
        async with asked("tts", streams(*cut, b"\0", content_type="audio/pcm;rate=24000")) as (_, created):
            heard = await speech(created)
            assert np.array_equal(heard, pcm[: len(heard)]) and len(heard) >= len(b"".join(cut)) // 2

    run(main())


def test_tts_of_nothing_asks_nobody() -> None:
    async def main() -> None:
        async with asked("tts") as (server, created):
            assert len(await speech(created, "")) == len(await speech(created, " \n")) == 0
            assert server.requests == []

    run(main())


NO_SOUND = {
    ("audio/wav", b"RIFF$\0\0\0WAVEfmt "): "sent a file where raw PCM was asked for",
    ("audio/pcm", b"OggS\0\2"): "sent a file where raw PCM was asked for",
    ("audio/mpeg", b"ID3\4\0"): "sent a file where raw PCM was asked for",
    ("audio/mpeg", b"\xff\xfb\x90\x64"): "sent a file where raw PCM was asked for",
    ("text/plain", b"no such voice"): "sent text/plain where sound was asked for",
    ("application/json", b'{"audio": "AAAA"}'): "sent application/json where sound was asked for",
    ("application/json", b'{"error": {"message": "no such voice"}}'): "failed: no such voice",
    ("audio/pcm;rate=22050", b"tea!"): "speaks at 22050 Hz, not 24000",
}


@pytest.mark.parametrize("kind", NO_SOUND)
def test_tts_plays_no_noise(kind: tuple[str, bytes]) -> None:
    async def main() -> None:
        async with asked("tts", streams(kind[1], content_type=kind[0])) as (_, created):
            assert NO_SOUND[kind] in await error_of("tts", created)

    run(main())


@pytest.mark.parametrize("content_type", ["audio/mpeg", "audio/wav", "application/octet-stream", "audio/pcm"])
def test_tts_believes_the_samples_more_than_their_name(content_type: str) -> None:
    async def main() -> None:
        async with asked("tts", streams(b"te", b"a!", content_type=content_type)) as (_, created):
            assert await whole("tts", created) == b"tea!"

    run(main())


# --- stt


SPOKEN_PCM = recording("go-forward.wav")


class Ear:
    """Answers as our service does: with the number of samples heard so far, while they come, and all at the end."""

    def __init__(self) -> None:
        self.fields: list[dict[str, str]] = []
        self.heard = b""
        self.sounds: list[bytes] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Listen to one utterance."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        parser, part = FormParser(boundary_of(request.headers["Content-Type"])), Part("")
        fields: dict[str, str] = {}
        self.heard = b""
        self.fields.append(fields)
        async for octets in request.content.iter_any():
            for found in parser.push(octets):
                if isinstance(found, Part):
                    part = found
                    fields[part.name] = part.content_type + part.filename
                elif isinstance(found, bytes) and part.name != "file":
                    fields[part.name] += found.decode()
                elif isinstance(found, bytes):
                    self.heard += found
                    text = str(len(self.heard) // 2)
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(event({"type": "transcript.text.delta", "delta": "", "text": text}))
        parser.end()
        self.sounds.append(self.heard)
        if not response.prepared:
            await response.prepare(request)
        done = {"type": "transcript.text.done", "text": f"all {len(self.heard) // 2}", "language": "en"}
        await response.write(event({"type": "something.else"}) + event(done))
        return response


@asynccontextmanager
async def heard_by(ear: Answer, **settings: str) -> AsyncIterator[tuple[ApiServer, Any]]:
    async with api_server(ear, OURS) as server, engine("stt", server.url, **settings) as stt:
        yield server, stt


@pytest.mark.usefixtures("patience")
def test_stt_of_ours_hears_the_caller_while_they_speak() -> None:
    """The utterance goes on only when what was said so far has been heard: a collected one would wait for ever."""
    said = 0
    caught_up = asyncio.Event()

    async def spoken() -> AsyncIterator[AudioFrame]:
        nonlocal said
        async for frame in in_frames(SPOKEN_PCM[:3200]):
            caught_up.clear()
            said += len(frame.pcm)
            yield frame
            await caught_up.wait()

    async def main() -> None:
        ear = Ear()
        async with heard_by(ear) as (server, stt):
            for _ in range(3):
                said_before = said
                heard = []
                async for transcript in stt.transcribe(spoken(), "en-US", "Zoë, Ada"):
                    heard.append(transcript)
                    if not transcript.final and int(transcript.text) == said - said_before:
                        caught_up.set()
                assert heard[-1] == Transcript("all 3200", True, "en")
                assert [t.final for t in heard] == [False] * (len(heard) - 1) + [True]
                assert [int(t.text) for t in heard[:-1]] == list(range(320, 3201, 320))
            assert len(set(server.peers)) == 1  # also after a request that was answered while it was written
        assert ear.sounds == [SPOKEN_PCM[:3200].tobytes()] * 3
        assert ear.fields[0] == {
            "model": "default", "language": "en-US", "response_format": "json", "stream": "true",
            "prompt": "Zoë, Ada", "file": "audio/pcmaudio.pcm",
        }  # fmt: skip

    run(main())


@pytest.mark.usefixtures("patience")
def test_stt_of_others_gets_the_utterance_as_a_wav_file() -> None:
    forms: list[dict[str, Any]] = []

    async def note(request: web.Request) -> web.StreamResponse:
        assert request.content_length
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        assert (file.filename, file.content_type) == ("audio.wav", "audio/wav")
        forms.append({**form, "file": file.file.read()})
        return web.json_response({"text": " Go forward. ", "language": "english"})

    async def main() -> None:
        async with api_server(note) as server, engine("stt", server.url, MODEL="whisper-1") as stt:
            for language, prompt in (("de-CH", "Ada, Zürich"), (None, "")):
                heard = [t async for t in stt.transcribe(in_frames(SPOKEN_PCM), language, prompt)]
                assert heard == [Transcript("Go forward.", True, language)]
            assert len(set(server.peers)) == 1
        with wave.open(io.BytesIO(forms[0].pop("file"))) as wav:
            assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (SPEECH_RATE_HZ, 1, 2)
            assert wav.readframes(wav.getnframes()) == SPOKEN_PCM.tobytes()
        assert forms[0] == {
            "model": "whisper-1", "response_format": "json", "language": "de", "prompt": "Ada, Zürich",
        }  # fmt: skip
        assert not {"language", "prompt"} & forms[1].keys()

    run(main())


@pytest.mark.parametrize("models", [OURS, OTHERS])
def test_stt_of_nothing_asks_nobody(models: Mapping[str, Any]) -> None:
    async def main() -> None:
        async with api_server(Ear(), models) as server, engine("stt", server.url) as stt:
            assert [t async for t in stt.transcribe(in_frames(silence(0)), "en")] == [Transcript("", True, "en")]
            assert server.requests == []

    run(main())


@pytest.mark.parametrize("models", [OURS, OTHERS])
def test_stt_passes_on_what_its_input_raises(models: Mapping[str, Any]) -> None:
    async def broken(frames: int) -> AsyncIterator[AudioFrame]:
        async for frame in in_frames(silence(320 * frames)):
            yield frame
            await asyncio.sleep(0.001)
        raise LookupError("the microphone is gone")

    async def fast() -> AsyncIterator[AudioFrame]:
        yield AudioFrame(silence(480), 24_000, 0)

    async def main() -> None:
        async with api_server(Ear(), models) as server, engine("stt", server.url) as stt:
            for frames in (0, 1, 20):
                with pytest.raises(LookupError, match="microphone"):
                    _ = [t async for t in stt.transcribe(broken(frames), "en")]
            with pytest.raises(EngineError, match="hears 16000 Hz, not 24000"):
                _ = [t async for t in stt.transcribe(fast(), "en")]

    run(main())


@pytest.mark.parametrize("models", [OURS, OTHERS])
def test_stt_stops_when_closed_while_the_caller_speaks(models: Mapping[str, Any]) -> None:
    async def spoken(then: asyncio.Event) -> AsyncIterator[AudioFrame]:
        async for frame in in_frames(SPOKEN_PCM[:3200]):
            yield frame
        await then.wait()

    async def main() -> None:
        async with api_server(Ear(), models) as server, engine("stt", server.url) as stt:
            heard_so_far: list[Transcript] = []
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(collect(stt.transcribe(spoken(asyncio.Event()), "en"), heard_so_far), 0.1)
            assert not any(transcript.final for transcript in heard_so_far)
            if models is OURS:
                async with closing(stt.transcribe(spoken(asyncio.Event()), "en")) as heard:
                    assert not (await anext(heard)).final
                await asyncio.wait_for(server.gone.wait(), STOPPED_S)

    run(main())


def test_stt_says_it_all_again_where_the_connection_drops_before_the_first_words() -> None:
    async def main() -> None:
        ear = Ear()
        drops = 0

        async def drop(request: web.Request) -> web.StreamResponse:
            nonlocal drops
            await request.content.readexactly(2000)
            drops += 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        async def answer(request: web.Request) -> web.StreamResponse:
            return await (ear if drops else drop)(request)

        async def spoken() -> AsyncIterator[AudioFrame]:
            async for frame in in_frames(SPOKEN_PCM[:6400]):
                yield frame
                await asyncio.sleep(0.002)

        async with heard_by(answer) as (server, stt):
            heard = [t async for t in stt.transcribe(spoken(), None)]
            assert heard[-1].text == "all 6400" and ear.sounds == [SPOKEN_PCM[:6400].tobytes()]
            assert server.posts == 2

    run(main())


def test_stt_does_not_say_it_again_after_the_first_words() -> None:
    async def drop(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event({"type": "transcript.text.delta", "delta": "go", "text": "go"}))
        await request.content.readexactly(4000)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def main() -> None:
        async with heard_by(drop) as (server, stt):
            heard: list[Transcript] = []
            with pytest.raises(Dropped):
                await collect(stt.transcribe(in_frames(SPOKEN_PCM[:6400]), None), heard)
            assert heard == [Transcript("go", False, None)] and server.posts == 1

    run(main())


def test_stt_waits_for_words_only_once_the_caller_is_silent() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await request.read()
        return await never(request)

    async def spoken() -> AsyncIterator[AudioFrame]:
        for frame in [f async for f in in_frames(silence(320 * 10))]:
            yield frame
            await asyncio.sleep(0.02)
        ended_s.append(time.perf_counter())

    ended_s: list[float] = []

    async def main() -> None:
        async with heard_by(slow, FIRST_S="0.4") as (server, stt):
            with pytest.raises(EngineError, match=r"gave nothing for 0\.4 s"):
                _ = [t async for t in stt.transcribe(spoken(), None)]
            assert time.perf_counter() - ended_s[0] > 0.39
            await asyncio.wait_for(server.gone.wait(), STOPPED_S)

    run(main())


def test_stt_takes_final_words_that_come_before_the_end_of_the_audio() -> None:
    async def early(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event({"type": "transcript.text.done", "text": "enough"}))
        return response

    async def endless() -> AsyncIterator[AudioFrame]:
        while True:
            yield AudioFrame(silence(320), SPEECH_RATE_HZ, 0)
            await asyncio.sleep(0.001)

    async def main() -> None:
        async with heard_by(early) as (_, stt):
            assert [t async for t in stt.transcribe(endless(), None)] == [Transcript("enough", True, None)]

    run(main())


UNHEARD: dict[str, tuple[Sequence[bytes], str]] = {
    "cut short": ([event({"type": "transcript.text.delta", "text": "go"})], "cut its transcript short"),
    "an error": ([event({"error": {"message": "no memory"}})], "failed: no memory"),
    "no text": ([event({"type": "transcript.text.done"})], "sent no text where"),
    "a wrong text": ([event({"type": "transcript.text.delta", "text": 7})], "sent no text where"),
    "no JSON": ([event("go")], "sent something else than a JSON object"),
}


@pytest.mark.parametrize("name", UNHEARD)
def test_stt_says_what_is_wrong_with_a_stream(name: str) -> None:
    async def main() -> None:
        async with heard_by(streams(*UNHEARD[name][0])) as (server, stt):
            assert UNHEARD[name][1] in await error_of("stt", stt)
            server.answer = Ear()
            assert await whole("stt", stt) == "all 640"

    run(main())


@pytest.mark.parametrize("body", ["{", "[]", '{"text": 7}', "{}"])
def test_stt_says_what_is_wrong_with_an_answer_in_one_piece(body: str) -> None:
    async def main() -> None:
        async with asked("stt", replies(body)) as (_, stt):
            assert "sent" in await error_of("stt", stt)

    run(main())


def test_stt_keeps_no_audio_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "HELD_MAX_BYTES", 32_000)

    async def main() -> None:
        async with heard_by(Ear()) as (_, stt):
            with pytest.raises(EngineError, match="an utterance is longer than 1 s"):
                _ = [t async for t in stt.transcribe(in_frames(silence(16_001)), None)]
            heard = [t async for t in stt.transcribe(in_frames(silence(16_000)), None)]
            assert heard[-1].text == "all 16000"

    run(main())
