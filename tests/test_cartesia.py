"""Cartesia behind its real SDK, against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pipeline.audio import Pcm
from pipeline.engines import aclose, choose, load, module, usable
from pipeline.errors import EngineError, EngineUnavailable, NotOffered
from pipeline.tasks import closing

from .vendors import (
    KEY,
    KNOWN_VOICES,
    RATE_HZ,
    CartesiaSocket,
    CartesiaVendor,
    Script,
    Speak,
    cartesia_speaks,
    created,
    hang_up,
    nothing_is_ended_by_the_garbage_collector,
    refusing,
    run,
    serving,
    stall,
    tone,
)

CLAUSE = "A canary sang: how are you?"
SAMPLES = round(len(CLAUSE) * 0.06 * RATE_HZ)
FRAME = tone(480).astype("<i2").tobytes()


@asynccontextmanager
async def cartesia(speak: Speak, settings: Mapping[str, str] = {}) -> AsyncIterator[tuple[Any, CartesiaVendor]]:
    """Yield the engine and the server it asks."""
    vendor = CartesiaVendor(speak)
    async with engine_at(vendor.handle, settings) as engine:
        yield engine, vendor
    assert vendor.wrong == []


@asynccontextmanager
async def engine_at(handle: Script, settings: Mapping[str, str] = {}) -> AsyncIterator[Any]:
    """Yield the engine of a server that answers in its own way."""
    async with serving(handle) as url:
        engine = await created("tts", "cartesia", {"CARTESIA_API_KEY": KEY, "CARTESIA_BASE_URL": url, **settings})
        try:
            yield engine
        finally:
            await aclose(engine)


async def speech(engine: Any, clause: str = CLAUSE, voice: str | None = None, speed: float = 1.0) -> Pcm:
    chunks = [pcm async for pcm in engine.synthesize(clause, voice, "en-GB", speed)]
    assert all(pcm.dtype == np.int16 and pcm.ndim == 1 and len(pcm) for pcm in chunks)
    return np.concatenate([np.zeros(0, np.int16), *chunks])


async def complaint(engine: Any, voice: str | None = None) -> str:
    """Return what a user is told when it fails."""
    with pytest.raises(EngineError) as caught:
        await speech(engine, voice=voice)
    told = str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert KEY not in told
    assert "canary" not in told
    return told


def failure(speak: Speak, settings: Mapping[str, str] = {}) -> str:
    """Return what a user is told."""
    told: list[str] = []

    async def main() -> None:
        async with cartesia(speak, settings) as (engine, _):
            told.append(await complaint(engine))

    run(main())
    return told[0]


# --- what is asked


def test_it_asks_as_cartesia_wants_to_be_asked() -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            await speech(engine)
            asked, request = vendor.asked[0], vendor.received[0]
        assert (asked.method, asked.path) == ("GET", "/tts/websocket")
        assert asked.headers["Authorization"] == f"Bearer {KEY}"
        assert asked.headers["cartesia-version"] >= "2026-03-01"  # since then errors have codes
        assert "Sec-WebSocket-Extensions" not in asked.headers
        assert request.pop("context_id")
        assert request == {
            "model_id": "sonic-3.5",
            "voice": "f786b574-daa5-4673-aa0c-cbe3e8534c02",
            "language": "en",
            "transcript": f"{CLAUSE} ",
            "continue": True,
            "max_buffer_delay_ms": 0,
            "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000},
        }

    run(main())


@pytest.mark.parametrize(("speed", "asked"), [(0.25, 0.6), (0.9, 0.9), (1.1, 1.1), (4.0, 1.5)])
def test_speed_is_brought_within_what_it_takes(speed: float, asked: float) -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            await speech(engine, speed=speed)
            assert vendor.received[0]["generation_config"] == {"speed": asked}

    run(main())


def test_voice_and_model_are_chosen_by_call_or_by_setting() -> None:
    settings = {"VOCAL_CARTESIA_VOICE": KNOWN_VOICES[0], "VOCAL_CARTESIA_MODEL": "sonic-3"}

    async def main() -> None:
        async with cartesia(cartesia_speaks, settings) as (engine, vendor):
            await speech(engine)
            await speech(engine, voice=KNOWN_VOICES[1])
            assert [request["voice"] for request in vendor.received] == list(KNOWN_VOICES)
            assert vendor.received[0]["model_id"] == "sonic-3"

    run(main())


@pytest.mark.parametrize("voice", ["", "../voices", "x" * 65, "a\n"])
def test_a_voice_that_can_be_no_id_is_never_asked_for(voice: str) -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            assert "is no voice's id at Cartesia" in await complaint(engine, voice)
            assert vendor.asked == []
            with pytest.raises(NotOffered):
                await speech(engine, voice="nobody")

    run(main())


def test_nothing_is_not_asked_for_and_much_is_asked_for_in_pieces() -> None:
    words = ["word"] * 2_000

    async def one_frame(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await socket.chunk(message["context_id"], FRAME)

    async def main() -> None:
        async with cartesia(one_frame) as (engine, vendor):
            assert len(await speech(engine, " \n")) == len(vendor.received) == 0
            samples = len(await speech(engine, " ".join(words)))
            texts = [request["transcript"] for request in vendor.received]
            assert "".join(texts).split() == words
            assert max(map(len, texts)) <= 501
            assert samples == 480 * len(texts)
            assert len({request["context_id"] for request in vendor.received}) == 1

    run(main())


# --- the sound


@pytest.mark.parametrize("cut", [1, 2, 3, 959, 961, 100_000])
def test_a_sine_comes_out_as_it_went_in_however_it_is_cut(cut: int) -> None:
    sine = tone(3_000, 997.0)

    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        octets = sine.astype("<i2").tobytes()
        for i in range(0, len(octets), cut):
            await socket.chunk(message["context_id"], octets[i : i + cut])

    async def main() -> None:
        async with cartesia(speak) as (engine, _):
            assert engine.rate_hz == RATE_HZ
            assert np.array_equal(await speech(engine), sine)

    run(main())


def test_the_first_chunk_comes_before_the_next_is_sent() -> None:
    async def main() -> None:
        heard = asyncio.Event()

        async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
            await socket.chunk(message["context_id"], FRAME)
            await heard.wait()
            await socket.send(type="timestamps", context_id=message["context_id"], done=False, status_code=206)
            await socket.chunk(message["context_id"], b"")
            await socket.chunk(message["context_id"], FRAME[:100])

        async with cartesia(speak) as (engine, vendor), closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound:
            assert len(await anext(sound)) == 480
            heard.set()
            assert [len(pcm) async for pcm in sound] == [50]
            assert vendor.canceled.empty()

    run(main())


# --- one connection for all


async def endless(socket: CartesiaSocket, message: dict[str, Any]) -> None:
    """Speak until canceled."""
    while True:
        await socket.chunk(message["context_id"], FRAME)
        await asyncio.sleep(0.001)


def test_closing_cancels_at_cartesia_and_keeps_the_connection() -> None:
    async def main() -> None:
        async with cartesia(endless) as (engine, vendor):
            for _ in range(20):
                async with closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound:
                    assert len(await anext(sound))
                assert await vendor.canceled.get() == vendor.received[-1]["context_id"]
            assert len(vendor.asked) == 1
            await nothing_is_ended_by_the_garbage_collector()

    run(main())


def test_canceling_while_it_waits_cancels_at_cartesia() -> None:
    async def silent(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with cartesia(silent) as (engine, vendor):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(speech(engine), 0.2)
            assert await vendor.canceled.get() == vendor.received[0]["context_id"]

    run(main())


def test_several_speak_at_once_on_one_connection_and_one_that_leaves_harms_nobody() -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await (endless if message["transcript"] == "On and on " else cartesia_speaks)(socket, message)

    async def main() -> None:
        async with cartesia(speak) as (engine, vendor):
            async with closing(engine.synthesize("On and on", None, "en", 1.0)) as leaving:
                await anext(leaving)
                others = [asyncio.create_task(speech(engine, CLAUSE * n)) for n in range(1, 6)]
                await others[0]
            spoken = await asyncio.gather(*others)
            assert all(np.array_equal(pcm, tone(SAMPLES * n)) for n, pcm in enumerate(spoken, 1))
            assert (len(vendor.asked), len(vendor.received)) == (1, 6)

    run(main())


def test_sound_that_nobody_takes_does_not_fill_the_memory_and_others_are_heard() -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        if message["transcript"] != "On and on ":
            await cartesia_speaks(socket, message)
            return
        for _ in range(5_000):
            await socket.chunk(message["context_id"], FRAME[:2])
        all_sent.set()

    async def main() -> None:
        async with (
            cartesia(speak) as (engine, _),
            closing(engine.synthesize("On and on", None, "en", 1.0)) as ignored,
        ):
            assert len(await anext(ignored)) == 1
            await all_sent.wait()
            assert len(await speech(engine)) == SAMPLES  # which came after all of them
            with pytest.raises(EngineError, match="nobody took the last 4096 messages"):
                _ = [pcm async for pcm in ignored]

    all_sent = asyncio.Event()
    run(main())


def test_a_connection_that_was_closed_while_idle_is_opened_anew() -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            for times in range(1, 4):
                assert len(await speech(engine)) == SAMPLES
                assert len(vendor.asked) == times
                await vendor.sockets[-1].ws.close()
                await vendor.closed.get()

    run(main())


def test_the_end_of_the_engine_closes_the_connection_and_tells_who_waits() -> None:
    async def main() -> None:
        async with cartesia(endless) as (engine, vendor):
            speaking = asyncio.create_task(speech(engine))
            await vendor.begun.wait()
            await aclose(engine)
            with pytest.raises(EngineError, match="closed"):
                await speaking
            assert await vendor.closed.get() == 1000

    run(main())


def test_an_engine_that_is_closed_while_it_connects_leaves_nothing() -> None:
    async def main() -> None:
        async with engine_at(stall) as engine:
            speaking = asyncio.create_task(speech(engine))
            await asyncio.sleep(0.1)
            await aclose(engine)
            with pytest.raises(EngineError, match="closed"):
                await speaking

    run(main())


# --- what goes wrong, in words

REFUSALS = [
    (401, None, "does not take the key in CARTESIA_API_KEY (401); see play.cartesia.ai"),
    (402, "quota_exceeded", "the account at Cartesia has no credit left, or its plan lacks this (402, quota_exceeded)"),
    (403, None, "the key in CARTESIA_API_KEY may not be used for this (403)"),
    (404, "voice_not_found", "does not have the voice 'f786b574-daa5-4673-aa0c-cbe3e8534c02' (404, voice_not_found)"),
    (404, "model_not_found", "does not have the model 'sonic-3.5' (404, model_not_found); see VOCAL_CARTESIA_MODEL"),
    (404, None, "by that name (404); check VOCAL_CARTESIA_MODEL and CARTESIA_BASE_URL"),
    (400, "language_not_supported", "does not have this language for sonic-3.5 (400, language_not_supported)"),
    (422, "invalid_transcript", "did not accept the request (422, invalid_transcript)"),
    (429, "concurrency_limited", "takes no more requests for now (429, concurrency_limited); try again later"),
    (500, None, "Cartesia is out of order (500); try again later"),
    (503, None, "Cartesia is out of order (503); try again later"),
]


@pytest.mark.parametrize("addressed", [True, False])
@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
def test_a_refusal_is_told_in_words_and_the_connection_lives(
    status: int, code: str | None, words: str, addressed: bool
) -> None:
    refusals = [True, False]

    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        if refusals.pop(0):
            await socket.error(message["context_id"] if addressed else None, status, code)
        else:
            await cartesia_speaks(socket, message)

    async def main() -> None:
        async with cartesia(speak) as (engine, vendor):
            told = await complaint(engine)
            assert told.startswith("tts cartesia: ")
            assert words in told
            assert len(await speech(engine)) == SAMPLES
            assert (len(vendor.asked), len(vendor.received)) == (1, 2)
            assert vendor.canceled.empty()

    run(main())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not take the key in CARTESIA_API_KEY (401)"),
        (402, "no credit left"),
        (404, "by that name (404); check VOCAL_CARTESIA_MODEL and CARTESIA_BASE_URL"),
        (429, "takes no more requests for now (429, too_many_connections); try again in 7 s"),
        (503, "is out of order (503, too_many_connections)"),
    ],
)
def test_a_connection_that_is_refused_is_told_in_words(status: int, words: str) -> None:
    body = {"error_code": "too_many_connections", "message": f"{KEY} {CLAUSE}"} if status in (429, 503) else CLAUSE

    async def main() -> None:
        async with engine_at(refusing(status, body, {"Retry-After": "7"})) as engine:
            together = await asyncio.gather(*(complaint(engine) for _ in range(3)))
            assert all(words in told for told in [*together, await complaint(engine)])

    run(main())


def test_a_lost_connection_is_tried_once_more_and_only_before_the_first_sound() -> None:
    async def drop_first(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        if drops.pop(0):
            socket.drop()
        else:
            await cartesia_speaks(socket, message)

    async def main() -> None:
        async with cartesia(drop_first) as (engine, vendor):
            assert len(await speech(engine)) == SAMPLES
            assert "the connection to Cartesia was lost" in await complaint(engine)
            assert (len(vendor.received), drops) == (4, [])

    drops = [True, False, True, True]
    run(main())


def test_a_clause_that_breaks_off_is_never_spoken_twice_and_the_next_one_is_spoken() -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        if len(spoken) < 3:
            spoken.append(message["transcript"])
            await socket.chunk(message["context_id"], FRAME)
            if len(spoken) == 3:
                socket.drop()
            await asyncio.Event().wait()
        await cartesia_speaks(socket, message)

    async def break_off(engine: Any) -> None:
        async with closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound:
            assert len(await anext(sound)) == 480
            with pytest.raises(EngineError, match="the connection to Cartesia was lost"):
                await anext(sound)

    async def main() -> None:
        async with cartesia(speak) as (engine, vendor):
            await asyncio.gather(*(break_off(engine) for _ in range(3)))
            assert len(await speech(engine)) == SAMPLES
            assert len(vendor.received) == 4

    spoken: list[str] = []
    run(main())


def test_silence_is_told_after_the_time_that_was_set() -> None:
    async def stall_later(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await socket.chunk(message["context_id"], FRAME)
        await asyncio.Event().wait()

    async def main() -> None:
        limit = {"VOCAL_CARTESIA_TIMEOUT_S": "0.3"}
        async with cartesia(stall_later, limit) as (engine, vendor):
            assert await complaint(engine) == "tts cartesia: Cartesia sent nothing for 0.3 s"
            assert await vendor.canceled.get() == vendor.received[0]["context_id"]
        async with engine_at(stall, limit) as engine:
            assert await complaint(engine) == "tts cartesia: Cartesia sent nothing for 0.3 s"

    run(main())


def test_a_host_that_is_not_there_is_named() -> None:
    async def main() -> None:
        async with serving(stall) as url:
            pass
        engine = await created("tts", "cartesia", {"CARTESIA_API_KEY": KEY, "CARTESIA_BASE_URL": url})
        told = await complaint(engine)
        assert "cannot be reached at 127.0.0.1; " in told
        assert told.endswith("CARTESIA_BASE_URL")
        await aclose(engine)
        await aclose(engine)

    run(main())


async def drops_at_once(request: web.Request) -> web.StreamResponse:
    return await hang_up(request)


async def is_a_web_page(request: web.Request) -> web.StreamResponse:
    return web.Response(text="Welcome to the hotel's network")


@pytest.mark.parametrize("handle", [drops_at_once, is_a_web_page])
def test_what_is_no_websocket_is_told(handle: Script) -> None:
    async def main() -> None:
        async with engine_at(handle) as engine:
            assert (await complaint(engine)).startswith("tts cartesia: ")

    run(main())


RUBBISH: list[Any] = [
    "{nonsense",
    "[1, 2]",
    "7",
    "{}",
    "\x00" * 9,
    "x" * 2_000_000,
    json.dumps({"type": "chunk", "context_id": ["a"], "data": ""}),
    b"\xff\xfe",
    b"\x00" * 480,
]


@pytest.mark.parametrize("message", RUBBISH, ids=lambda message: repr(message)[:20])
def test_rubbish_is_an_error_and_the_next_clause_is_spoken(message: str | bytes) -> None:
    async def speak(socket: CartesiaSocket, asked: dict[str, Any]) -> None:
        if sane.is_set():
            await cartesia_speaks(socket, asked)
        else:
            await (socket.ws.send_str(message) if isinstance(message, str) else socket.ws.send_bytes(message))

    async def main() -> None:
        async with cartesia(speak, {"VOCAL_CARTESIA_TIMEOUT_S": "0.5"}) as (engine, _):
            await complaint(engine)
            sane.set()
            assert len(await speech(engine)) == SAMPLES

    sane = asyncio.Event()
    run(main())


@pytest.mark.parametrize("data", ["***", "AAA", 7, None, {}])
def test_what_is_no_sound_is_not_spoken(data: object) -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await socket.send(type="chunk", context_id=message["context_id"], data=data, done=False, status_code=206)

    assert "sent something that is no answer" in failure(speak)


def test_an_error_without_a_status_is_told() -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await socket.send(type="error", context_id=message["context_id"])

    assert "Cartesia" in failure(speak)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_log_has_no_key_and_above_debug_no_words(level: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, _):
            await speech(engine)

    caplog.set_level(level)
    run(main())
    ours = [r for r in caplog.records if r.name.split(".")[0] not in ("aiohttp", "asyncio")]
    assert not [r for r in ours if KEY in r.getMessage()]
    assert not [r for r in ours if "canary" in r.getMessage() and r.levelno > logging.DEBUG]


# --- what it needs


def test_it_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    describe = module("tts", "cartesia").describe
    assert describe({}).lacks == "CARTESIA_API_KEY"
    assert describe({"CARTESIA_API_KEY": KEY}).lacks is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert describe({"CARTESIA_API_KEY": KEY}).lacks == "pip install vocal-node[cloud]"
    with pytest.raises(EngineUnavailable, match=r"pip install vocal-node\[cloud\]"):
        load("tts", "cartesia", {"CARTESIA_API_KEY": KEY})


def test_a_key_is_reason_enough_to_take_it() -> None:
    assert usable("tts", {"CARTESIA_API_KEY": KEY})[0][0] == "cartesia"
    chosen = choose("tts", "auto", {"CARTESIA_API_KEY": KEY})
    assert chosen.why.startswith("tts cartesia: Cartesia, sonic-3.5 in the cloud")
    run(aclose(chosen.engine))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"CARTESIA_API_KEY": "a key"}, "a usable CARTESIA_API_KEY"),
        ({"CARTESIA_BASE_URL": "wss://x"}, "a usable CARTESIA_BASE_URL"),
        ({"VOCAL_CARTESIA_TIMEOUT_S": "soon"}, "VOCAL_CARTESIA_TIMEOUT_S must be"),
        ({"VOCAL_CARTESIA_VOICE": "Katie Smith"}, "VOCAL_CARTESIA_VOICE"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, str], words: str) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        load("tts", "cartesia", {"CARTESIA_API_KEY": KEY, **settings})
