"""The raw-PCM WebSocket over real sockets, in the whole application: what clients must not do, and what they hear."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import WSMsgType

from media_server.app import HUB
from pipeline.audio import SPEECH_RATE_HZ, silence

from .raw_pcm import CONFIG, Http, calling, calling_stubbornly, serving, types
from .recordings import recording
from .rtc import until

MIB = 1_048_576


async def refused(http: Http, *messages: str | bytes, path: str = "/ws/s1") -> tuple[str, int | None]:
    """Send these on a new connection; return what it is told and closed with."""
    async with calling(http, path, configured=False) as caller:
        for message in messages:
            if isinstance(message, str):
                await caller.connection.send_str(message)
            else:
                await caller.connection.send_bytes(message)
        return await caller.error(), await caller.closed()


def config(**more: Any) -> str:
    """Return a configuration."""
    return json.dumps({**CONFIG, **more})


# --- before the call


def test_a_call_that_cannot_begin_is_told_why(tmp_path: Path) -> None:
    cases: list[tuple[str | bytes, str, int]] = [
        (b"\0\0", "before the configuration", 1002),
        ("hello", "must be JSON", 1002),
        ("[1]", "must be a JSON object", 1002),
        ("{}", "lacks agentId, userId, agentName", 1002),
        (config(agentId="../../etc/passwd"), "agentId must be", 1002),
        (config(userId="../../etc/passwd"), "userId must be", 1002),
        (config(configId="../../etc/passwd"), "configId", 1002),
        (config(speed=99), "speed", 1002),
        (config(systemPrompt="x" * 100_000), "systemPrompt", 1002),
        (config(systemPrompt="x" * 500_000), "may have", 1009),
        (config(voiceSampleUrl="https://127.0.0.1/voice.wav"), "voiceSampleUrl", 1008),
        (config(speechDetectorConfig={"energy_threshold": 7}), "energy_threshold", 1002),
        (config(ttsModel="elevenlabs"), "ELEVENLABS_API_KEY", 1011),
    ]

    async def main() -> None:
        async with serving(tmp_path) as http:
            for message, why, code in cases:
                told, closed_with = await refused(http, message)
                assert why in told, message[:100]
                assert closed_with == code, message[:100]
            assert http.app[HUB].sessions == 0

    asyncio.run(main())


@pytest.mark.parametrize("session_id", ["..%2F..%2Fetc%2Fpasswd", "a%00b", "x" * 65, "a%20b", "%C3%A9", "a.b"])
def test_a_session_id_is_no_path(tmp_path: Path, session_id: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http:
            told, code = await refused(http, path=f"/ws/{session_id}")
            assert ("session_id must be" in told, code) == (True, 1002)

    asyncio.run(main())


@pytest.mark.parametrize("size", [MIB, 10 * MIB])
def test_a_message_that_is_too_long_is_told_so_even_while_it_is_being_sent(tmp_path: Path, size: int) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http:
            told, code = await refused(http, config(systemPrompt="x" * size))
            assert ("shorter than 1048576 bytes" in told, code) == (True, 1009)

    asyncio.run(main())


def test_who_never_says_what_it_wants_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compat_ws.connection.CONFIGURE_S", 0.2)

    async def main() -> None:
        async with serving(tmp_path) as http:
            told, code = await refused(http)
            assert ("no configuration came" in told, code) == (True, 1008)
            assert http.app[HUB].sessions == 0

    asyncio.run(main())


# --- during the call


def test_what_cannot_be_read_is_told_and_the_call_lives(tmp_path: Path) -> None:
    rubbish = ["", "hello", "[" * 10_000, "[]", '{"type": "dance"}', config()]
    rubbish += [json.dumps({"type": "transcript", "text": text}) for text in ("", "x" * 100_000, 5)]

    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            for message in rubbish:
                await caller.connection.send_str(message)
                assert len(await caller.error()) < 200
            await caller.connection.send_bytes(b"\1")
            await caller.connection.send_bytes(b"")
            await caller.tell("transcript", text="still there?")
            assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]

    asyncio.run(main())


def test_text_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            await caller.connection.send_frame(b"\xff\xfe", WSMsgType.TEXT)
            assert "UTF-8" in await caller.error()
            assert await caller.closed() == 1007

    asyncio.run(main())


def test_a_flood_of_rubbish_ends_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            for _ in range(1_000):
                await caller.connection.send_str("rubbish")
            errors = [await caller.error()]
            while "must be JSON" in errors[-1]:
                errors.append(await caller.error())
            assert "messages a second" in errors[-1]
            assert 100 <= len(errors) < 1_000
            assert await caller.closed() == 1008

    asyncio.run(main())


def test_sound_far_ahead_of_time_ends_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            await caller.connection.send_bytes(silence(59 * SPEECH_RATE_HZ // 2).tobytes())
            await caller.connection.send_bytes(silence(59 * SPEECH_RATE_HZ // 2).tobytes())
            await caller.tell("ping")
            assert (await caller.next())["type"] == "pong", "a minute may be ahead"
            await caller.connection.send_bytes(silence(5 * SPEECH_RATE_HZ).tobytes())
            assert "60 s ahead of time" in await caller.error()
            assert await caller.closed() == 1008

    asyncio.run(main())


def test_half_a_minute_in_one_message_is_heard_whole(tmp_path: Path) -> None:
    async def main() -> None:
        sound = np.concatenate([silence(25 * SPEECH_RATE_HZ), recording("austen-0880.wav")])
        async with serving(tmp_path) as http, calling(http) as caller:
            await caller.connection.send_bytes(sound.tobytes())
            assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]

    asyncio.run(main())


def test_who_does_not_read_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compat_ws.client_socket.SEND_S", 0.5)
    monkeypatch.setattr("compat_ws.client_socket.GOODBYE_S", 0.2)

    async def main() -> None:
        async with serving(tmp_path) as http:
            async with calling_stubbornly("127.0.0.1", http.port or 0) as caller:
                await caller.tell({"type": "transcript", "text": "go on and on " * 500})
                await until(lambda: http.app[HUB].calls)
                await until(lambda: not http.app[HUB].calls)
                received = await caller.read_all()
                assert b"tts_stream" in received
                assert len(received) < 100_000, "the rest of a minute was never sent"
            assert await reasons(http) == {"too slow": 1}

    asyncio.run(main())


def test_who_vanishes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compat_ws.client_socket.PING_S", 0.3)
    monkeypatch.setattr("compat_ws.client_socket.GOODBYE_S", 0.2)

    async def main() -> None:
        async with serving(tmp_path) as http, calling_stubbornly("127.0.0.1", http.port or 0):
            await until(lambda: http.app[HUB].calls)
            await until(lambda: not http.app[HUB].calls)
            assert await reasons(http) == {"vanished": 1}

    asyncio.run(main())


async def reasons(http: Http) -> dict[str, int]:
    """Return how many sessions ended, by why."""
    text = await (await http.get("/metrics")).text()
    lines = [line for line in text.splitlines() if line.startswith("vocal_sessions_ended_total{")]
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}
