"""The speech service over real sockets: early sound, one request after the other, and an engine that stops at once."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType

from compat_ws import speaking, speech
from compat_ws.asking import TEXT_MAX_CHARS
from pipeline.agents import Agent
from pipeline.audio import VOICE_RATE_HZ, Pcm, to_float32
from pipeline.errors import EngineError
from pipeline.reply import Patience
from pipeline.tts.tone import ToneTextToSpeech
from tests.recordings import recording
from tests.service_server import Service, check, engine_set, error_of, shelf
from tests.sound_files import wav

ENDLESS = " ".join(["word"] * 2000)


@dataclass
class Voice:
    """Says each clause in ``chunks`` pieces of 20 ms at its own rate, one a permit; notes what it was asked for."""

    rate_hz: int = VOICE_RATE_HZ
    chunks: int = 2
    fault: Exception | None = None
    fails_after: int = 0
    clones: bool = False
    asked: list[tuple[str, str | None, str, float]] = field(default_factory=list)
    given: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        """It may speak as fast as it likes."""
        self.permits = asyncio.Semaphore(1 << 20)

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Speak."""
        self.asked.append((clause, voice, language, speed))
        try:
            for _ in range(self.chunks):
                if self.fault is not None and self.given >= self.fails_after:
                    raise self.fault
                await self.permits.acquire()
                self.given += 1
                yield np.full(self.rate_hz // 50, 8000, np.int16)
        finally:
            self.closed += 1


@asynccontextmanager
async def talking(service: Service, path: str = "/tts/stream") -> AsyncIterator[ClientWebSocketResponse]:
    """Open a socket."""
    async with service.client.ws_connect(service.url + path) as socket:
        yield socket


async def received(socket: ClientWebSocketResponse) -> list[dict[str, Any]]:
    """Return what answers one request."""
    messages: list[dict[str, Any]] = []
    while not messages or messages[-1]["type"] not in ("stream_end", "error"):
        messages.append(await socket.receive_json())
    return messages


async def spoken(socket: ClientWebSocketResponse, **request: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Have something spoken; check the messages' shape and return the sound."""
    await socket.send_json(request)
    first, *chunks, last = await received(socket)
    assert (first, last) == ({"type": "stream_start"}, {"type": "stream_end"})
    for chunk in chunks:
        assert list(chunk) == ["type", "chunk", "format", "sample_rate", "timestamp"]
        assert (chunk["type"], chunk["format"], chunk["sample_rate"]) == ("audio_chunk", "pcm_f32le", 24_000)
    return np.concatenate([np.frombuffer(base64.b64decode(chunk["chunk"]), "<f4") for chunk in chunks])


def tone_samples(clause: str) -> int:
    """Return how long the tone speaks a clause."""
    return len(clause) * 60 * VOICE_RATE_HZ // 1000


# The WebSocket


def test_a_real_voice_speaks_at_24_khz() -> None:
    async def test(service: Service) -> None:
        async with talking(service) as socket:
            sound = await spoken(socket, text="Hello there, how are you today?")
            assert 1.0 < len(sound) / VOICE_RATE_HZ < 4.0
            assert 0.1 < float(np.abs(sound).max()) <= 1.0
            german = await spoken(socket, text="Guten Tag, wie geht es Ihnen?", language="de", speed=2.0)
            assert len(german) < len(sound)
        assert service.counts.ended == [("tts", "finished")] * 2

    check(test, engine_set(tts="espeak"))


def test_samples_are_floats_of_full_scale_one() -> None:
    async def test(service: Service) -> None:
        async with talking(service) as socket:
            sound = await spoken(socket, text="Hello.")
        wanted = [pcm async for pcm in ToneTextToSpeech().synthesize("Hello.", None, "en", 1.0)]
        np.testing.assert_array_equal(sound, to_float32(np.concatenate(wanted)))

    check(test)


def test_another_rate_becomes_24_khz_without_a_seam() -> None:
    async def test(service: Service) -> None:
        async with talking(service) as socket:
            sound = await spoken(socket, text="One. Two. Three.")
        assert len(sound) == 6 * 480
        assert float(np.abs(np.diff(sound[100:-100])).max()) < 0.001, "each piece goes on where the last one ended"

    check(test, shelf({"tts": Voice(rate_hz=22_050 // 50 * 50)}))


def test_a_long_text_is_heard_while_the_rest_is_still_to_be_said() -> None:
    voice = Voice()

    async def test(service: Service) -> None:
        voice.permits = asyncio.Semaphore(2)
        async with talking(service) as socket:
            await socket.send_json({"text": "Well, this is a long story, and it begins here. Then it goes on."})
            assert [(await socket.receive_json())["type"] for _ in range(3)] == ["stream_start", *["audio_chunk"] * 2]
            clauses = ["Well, this is a long story,", "and it begins here.", "Then it goes on."]
            assert [asked[0] for asked in voice.asked] == clauses[: len(voice.asked)]
            assert len(voice.asked) < 3

    check(test, shelf({"tts": voice}))


def test_a_piece_is_small_enough_for_any_client() -> None:
    async def test(service: Service) -> None:
        async with talking(service) as socket:
            await socket.send_json({"text": "Hello."})
            sizes = [len(message.get("chunk", "")) for message in await received(socket)]
            assert max(sizes) == 200 * 24 * 4 * 4 // 3

    class Sentence(Voice):
        async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
            yield np.zeros(20 * VOICE_RATE_HZ, np.int16)

    check(test, shelf({"tts": Sentence()}))


def test_requests_on_one_socket_are_spoken_in_turn() -> None:
    texts = [f"{'word ' * i}word." for i in range(6)]

    async def test(service: Service) -> None:
        async with talking(service) as socket:
            for text in texts:
                await socket.send_json({"text": text})
            await socket.send_str("rubbish")
            await socket.send_json({"text": "Last."})
            lengths: list[int] = []
            for _ in texts:
                messages = await received(socket)
                lengths.append(sum(len(base64.b64decode(m["chunk"])) // 4 for m in messages if "chunk" in m))
            assert lengths == [tone_samples(text) for text in texts]
            (error,) = await received(socket)
            assert error["type"] == "error" and "JSON" in error["error"]
            assert (await received(socket))[-1] == {"type": "stream_end"}

    check(test)


def test_who_sends_far_more_than_can_be_spoken_is_cut_off() -> None:
    voice = Voice()

    async def test(service: Service) -> None:
        voice.permits = asyncio.Semaphore(0)
        async with talking(service) as socket:
            await socket.send_json({"text": "Hello."})
            await service.counts.until(lambda: bool(service.counts.begun))
            for _ in range(speech.MAX_WAITING + 1):
                await socket.send_json({"text": "Hello."})
            assert await socket.receive_json() == {"type": "error", "error": "over 64 requests wait: send less"}
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        await service.counts.until(lambda: service.counts.ended == [("tts", "abandoned")])
        assert voice.closed == 1

    check(test, shelf({"tts": voice}))


@pytest.mark.parametrize("politely", [True, False])
def test_a_closed_socket_stops_the_voice(politely: bool) -> None:
    voice = Voice(chunks=1000)

    async def test(service: Service) -> None:
        voice.permits = asyncio.Semaphore(3)
        async with talking(service) as socket:
            await socket.send_json({"text": "Hello there."})
            await socket.send_json({"text": "Never said."})
            for _ in range(4):
                await socket.receive_json()
            if politely:
                await socket.close()
            else:
                assert socket._response.connection is not None and socket._response.connection.transport is not None
                socket._response.connection.transport.abort()
            await service.counts.until(lambda: service.counts.ended == [("tts", "abandoned")])
            assert (voice.closed, voice.given, len(voice.asked)) == (1, 3, 1)

    check(test, shelf({"tts": voice}))


def test_an_engine_is_asked_for_by_address() -> None:
    named = {"cartesia": Voice(), "elevenlabs": Voice(), "other": Voice()}

    async def test(service: Service) -> None:
        agent = Agent("bob", "Bob", tts="other", voice="deep")
        await service.catalogue.add(agent)
        for path in ("/tts/stream/cartesia", "/tts/stream/elevenlabs", "/tts/stream"):
            async with talking(service, path) as socket:
                await spoken(socket, text="Hello.", personality="bob")

    check(test, shelf({"tts": Voice()}, named))
    assert [len(voice.asked) for voice in named.values()] == [1, 1, 1]
    assert named["other"].asked == [("Hello.", "deep", "en", 1.0)]


def test_a_missing_key_is_named_and_the_socket_lives_on() -> None:
    async def test(service: Service) -> None:
        for path, name in (("cartesia", "CARTESIA_API_KEY"), ("elevenlabs", "ELEVENLABS_API_KEY")):
            async with talking(service, f"/tts/stream/{path}") as socket:
                for _ in range(2):
                    await socket.send_json({"text": "Hello."})
                    (error,) = await received(socket)
                    assert name in error["error"]

    check(test)


def test_an_agent_says_how_it_is_spoken_and_a_request_says_otherwise() -> None:
    voice = Voice(clones=True)

    async def test(service: Service) -> None:
        await service.catalogue.add(Agent("bob", "Bob", language="de", speed=1.5, voice="deep"))
        async with talking(service) as socket:
            await spoken(socket, text="Hello.")
            await spoken(socket, text="Hello.", personality="Bob")
            await spoken(socket, text="Hello.", config_id="bob")
            await spoken(socket, text="Hello.", personality="bob", voice="high", language="fr", speed=0.5)
            await spoken(socket, text="Hello.", voice=f"sample:{'0' * 64}")

    check(test, shelf({"tts": voice}))
    assert [asked[1:] for asked in voice.asked] == [
        (None, "en", 1.0),
        ("deep", "de", 1.5),
        ("deep", "de", 1.5),
        ("high", "fr", 0.5),
        (f"sample:{'0' * 64}", "en", 1.0),
    ]


def test_a_voice_kept_here_is_cloned_by_an_engine_that_can() -> None:
    cloning, other = Voice(clones=True), Voice()

    async def test(service: Service) -> None:
        kept = await service.catalogue.add_voice("Eve", wav(np.tile(recording("austen-0880.wav"), 2)))
        await service.catalogue.add(Agent("eve", "Eve", voice=kept.id))
        async with talking(service) as socket:
            await spoken(socket, text="Hello.", voice=kept.id)
            await spoken(socket, text="Hello.", personality="eve")
        assert (await service.post("/v1/audio/speech", {"input": "Hello.", "voice": kept.id})).status == 200
        async with talking(service, "/tts/stream/cartesia") as socket:
            await spoken(socket, text="Hello.", personality="eve")
        assert [asked[1] for asked in cloning.asked] == [f"sample:{kept.sha256}"] * 3
        assert [asked[1] for asked in other.asked] == [None]

    check(test, shelf({"tts": cloning}, {"cartesia": other}))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("rubbish", "Invalid JSON"),
        ("[]", "object"),
        ("{}", "text: Field required"),
        ('{"text": ""}', "text is empty"),
        ('{"text": "\\n "}', "text is empty"),
        ('{"text": "\\ud83d\\ude00 ***"}', "nothing that can be spoken"),
        ('{"text": 7}', "text: Input should be a valid string"),
        (json.dumps({"text": "x" * 100_000}), f"at most {TEXT_MAX_CHARS} are taken"),
        ('{"text": "Hello.", "personality": "nobody"}', "POST /agents"),
        ('{"text": "Hello.", "language": "english"}', "language: "),
        ('{"text": "Hello.", "speed": 100}', "speed: "),
        ('{"text": "Hello.", "voice": "unheard of"}', "has one voice, 'tone'"),
        (b"\x00\x01\x02", "not a binary one"),
    ],
)
def test_what_is_wrong_is_told_and_the_next_request_is_spoken(message: str | bytes, why: str) -> None:
    async def test(service: Service) -> None:
        async with talking(service) as socket:
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
            (error,) = await received(socket)
            assert list(error) == ["type", "error"]
            assert why in error["error"] and len(error["error"]) < 300
            assert len(await spoken(socket, text="Hello.")) == tone_samples("Hello.")

    check(test)


def test_what_nobody_foresaw_is_logged_and_told_without_a_word_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: Any) -> Any:
        raise RuntimeError("secret-inner-text")

    async def test(service: Service) -> None:
        async with talking(service) as socket:
            await socket.send_json({"text": "Hello."})
            (error,) = await received(socket)
            assert "internal error" in error["error"] and "secret" not in error["error"]
            await socket.receive()
            assert socket.close_code == 1011

    monkeypatch.setattr(speech, "agent_for", fails)
    check(test)
    assert "secret-inner-text" in caplog.text


def test_a_message_that_is_far_too_long_ends_the_connection_with_its_code() -> None:
    async def test(service: Service) -> None:
        async with talking(service) as socket:
            await socket.send_str("x" * 2_000_000)
            assert (await socket.receive_json())["type"] == "error"
            await socket.receive()
            assert socket.close_code == 1009

    check(test)


def test_a_request_without_an_upgrade_is_refused() -> None:
    async def test(service: Service) -> None:
        await error_of(await service.client.get(f"{service.url}/tts/stream"), 400)

    check(test)


def test_a_voice_that_breaks_says_so_and_the_next_request_is_spoken() -> None:
    voice = Voice(fault=EngineError("the voice broke"), fails_after=1)

    async def test(service: Service) -> None:
        async with talking(service) as socket:
            await socket.send_json({"text": "Hello."})
            assert [m["type"] for m in await received(socket)] == ["stream_start", "audio_chunk", "error"]
            voice.fault = None
            await spoken(socket, text="Hello.")
        assert service.counts.ended == [("tts", "failed"), ("tts", "finished")]

    check(test, shelf({"tts": voice}))


# POST /tts


async def wav_of(service: Service, **body: Any) -> tuple[int, Pcm]:
    """Have something spoken; return the WAV's rate and samples."""
    response = await service.post("/tts", body)
    assert response.status == 200, await response.text()
    answer = await response.json()
    assert list(answer) == ["audio", "format", "sample_rate"]
    assert answer["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(answer["audio"], validate=True))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, answer["sample_rate"])
        pcm = np.frombuffer(file.readframes(1 << 30), np.int16)
        assert len(pcm) == file.getnframes()
    return answer["sample_rate"], pcm


def test_a_text_becomes_a_wav() -> None:
    async def test(service: Service) -> None:
        rate_hz, pcm = await wav_of(service, text="Hello there, how are you today? I am well.")
        assert rate_hz == VOICE_RATE_HZ
        assert len(pcm) == tone_samples("Hello there, how are you today?I am well.")

    check(test)


def test_a_text_that_takes_too_long_to_say_is_sent_to_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "WAV_MAX_S", 2.0)

    async def test(service: Service) -> None:
        error = await error_of(await service.post("/tts", {"text": "I shall say very much. " * 10}), 413)
        assert "/tts/stream" in error["message"]
        await wav_of(service, text="Hello.")

    check(test)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "text"),
        ({"text": ""}, 400, "text"),
        ({"text": "x" * 100_000}, 413, "text"),
        ({"text": "x" * 300_000}, 413, None),
        ({"text": "\N{GRINNING FACE}"}, 400, "text"),
        ({"text": "Hello.", "personality": "nobody"}, 404, "personality"),
        ({"text": "Hello.", "voice": "../..\n/etc"}, 400, "voice"),
        ({"text": "Hello.", "speed": 0}, 400, "speed"),
        ({"text": "Hello.", "language": 7}, 400, "language"),
    ],
)
def test_what_is_wrong_is_named(body: Any, status: int, param: str | None) -> None:
    async def test(service: Service) -> None:
        assert (await error_of(await service.post("/tts", body), status))["param"] == param
        assert service.counts.begun == []

    check(test)


def test_an_engine_that_fails_or_is_silent_has_a_true_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaking, "PATIENCE", Patience(tts_s=0.05))
    cases = {
        "the voice broke": Voice(fault=EngineError("the voice broke")),
        "the tts engine failed: RuntimeError": Voice(fault=RuntimeError("secret-inner-text")),
        "the speech engine gave no sound": Voice(chunks=0),
        "the tts engine gave nothing for 0.05 s": Voice(),
    }
    for why, voice in cases.items():

        async def test(service: Service, why: str = why, voice: Voice = voice) -> None:
            if "nothing" in why:
                voice.permits = asyncio.Semaphore(0)
            error = await error_of(await service.post("/tts", {"text": "Hello."}), 502)
            assert error["message"] == why
            assert service.counts.ended == [("tts", "failed")]

        check(test, shelf({"tts": voice}))


def test_who_leaves_stops_the_voice() -> None:
    voice = Voice(chunks=1000)

    async def test(service: Service) -> None:
        voice.permits = asyncio.Semaphore(3)
        asking = asyncio.create_task(service.post("/tts", {"text": "Hello."}))
        await service.counts.until(lambda: service.counts.produced == 3)
        asking.cancel()
        await asyncio.wait([asking])
        await service.counts.until(lambda: service.counts.ended == [("tts", "abandoned")])
        assert (voice.closed, voice.given) == (1, 3)

    check(test, shelf({"tts": voice}))
