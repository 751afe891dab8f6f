"""Rubbish into every route of the services: whatever it is, the answer is one of those documented, and never a 5xx."""

from __future__ import annotations

import asyncio
import io
import json
import random
from typing import Any

import pytest
from aiohttp import WSMsgType

from compat_ws import streaming
from tests.service_server import Service, check, shelf
from tests.test_speech_service import Voice

POSTS = ("/chat", "/tts", "/transcribe", "/v1/chat/completions", "/v1/audio/speech", "/v1/audio/transcriptions")
SOCKET = "/tts/stream"
FIELDS = (
    *("text", "session_id", "personality", "config_id", "config", "voice", "language", "speed", "model", "input"),
    *("messages", "role", "content", "type", "stream", "max_tokens", "response_format", "tools", "agentId", "name"),
)
WORDS = (
    *("", " ", "Hello.", "default", "tone", "en", "de", "../../etc/passwd", "\0", "\ud7ff\uffff", "x" * 3000),
    *("user", "system", "text", "pcm", "wav", "null", "{}", "\N{GRINNING FACE}", "sample:" + "0" * 64),
)
VALID: dict[str, Any] = {"text": "Hello.", "input": "Hello.", "messages": [{"role": "user", "content": "Hello."}]}
"""A request that every route with JSON takes."""
KINDS = ("application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", "rubbish", "")
ROUNDS = 80


def any_value(chance: random.Random, depth: int = 0) -> Any:
    """Return some JSON, half of it in fields that mean something."""
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind < 3:
        return chance.choice(WORDS)
    if kind < 5:
        return chance.choice((None, True, False, 0, -1, 1.5, 10**30, -1e300))
    if kind == 5:
        return [any_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(FIELDS): any_value(chance, depth + 1) for _ in range(chance.randrange(6))}


def any_body(chance: random.Random) -> bytes:
    """Return bytes: noise, JSON, a request with a field replaced or added, one cut short, something like a form."""
    noise = chance.randbytes(chance.randrange(300))
    spoilt = VALID | {chance.choice(FIELDS): any_value(chance) for _ in range(chance.randrange(3))}
    text = json.dumps(chance.choice((spoilt, spoilt, any_value(chance)))).encode()
    name = chance.choice(("file", "audio_file", "language", "stream", "format", "model")).encode()
    form = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n--x--' % (
        name,
        chance.choice((noise, b"true")),
    )
    return chance.choice((noise, text, text, text, text[: len(text) // 2], form, form + noise, form[:-9]))


@pytest.mark.parametrize("path", POSTS)
def test_rubbish_is_never_our_fault(path: str) -> None:
    chance = random.Random(path)
    statuses: set[int] = set()

    async def test(service: Service) -> None:
        for _ in range(ROUNDS):
            body, kind = any_body(chance), chance.choice((*KINDS, *KINDS[:1] * 12, *KINDS[1:2] * 5))
            response = await service.client.post(
                service.url + path, data=io.BytesIO(body), headers={"Content-Type": kind}
            )
            text = (await response.read()).decode(errors="replace")
            statuses.add(response.status)
            assert response.status == 200 or 400 <= response.status < 500, (body, kind, text)
            if response.status != 200:
                assert set(json.loads(text)["error"]) == {"message", "type", "param"}
                assert len(text) < 700, (body, kind, text)

    check(test)
    assert {400, 415} <= statuses
    assert 200 in statuses or "trans" in path, "some of it was good enough"


def test_rubbish_is_told_on_a_socket_that_lives_on() -> None:
    chance = random.Random(7)

    async def test(service: Service) -> None:
        async with service.client.ws_connect(service.url + SOCKET) as socket:
            for _ in range(3 * ROUNDS):
                body = any_body(chance)
                if body.isascii() and chance.random() < 0.8:
                    await socket.send_str(body.decode())
                else:
                    await socket.send_bytes(body)
                kind = ""
                while kind not in ("stream_end", "error"):
                    message = await socket.receive()
                    assert message.type is WSMsgType.TEXT, (body, message)
                    kind = json.loads(message.data)["type"]

    check(test)


@pytest.mark.parametrize("path", [*POSTS, "/chat/groq", "/v1/models", SOCKET])
def test_other_methods_are_refused(path: str) -> None:
    async def test(service: Service) -> None:
        for method in ("PUT", "DELETE", "PATCH"):
            assert (await service.client.request(method, service.url + path)).status == 405

    check(test)


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffers fill, and then the engine is held no longer than is allowed."""
    monkeypatch.setattr(streaming, "STALLED_S", 0.2)
    voice = Voice(chunks=1_000_000)

    async def test(service: Service) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]), limit=1024)
        body = json.dumps({"input": "Hello.", "response_format": "pcm"}).encode()
        writer.write(b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await service.counts.until(lambda: service.counts.ended == [("tts", "abandoned")])
        assert voice.closed == 1
        writer.close()

    check(test, shelf({"tts": voice}))
