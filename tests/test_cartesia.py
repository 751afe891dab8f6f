"""Cartesia behind its real SDK, against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pipeline.audio import Pcm
from pipeline.engines import aclose
from pipeline.errors import EngineError
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


async def tell(engine: Any, clauses: Sequence[str], between_s: float = 0.0) -> list[int]:
    """Speak a reply, the model thinking ``between_s`` before each further clause; return the clauses' samples."""
    lengths: list[int] = []
    async with aclosing(engine.open(None, "en", 1.0)) as reply:
        for clause in clauses:
            if lengths:
                await asyncio.sleep(between_s)
            async with closing(reply.speak(clause)) as sound:
                lengths.append(sum([len(pcm) async for pcm in sound]))
    return lengths


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


# --- the sound


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


# --- a reply is a context

REPLY = ["Well, a canary sang.", "It was yellow.", "Then it flew away."]
LENGTHS = [round(len(clause) * 0.06 * RATE_HZ) for clause in REPLY]


def test_the_clauses_of_a_reply_are_inputs_of_one_context() -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            assert await tell(engine, REPLY) == LENGTHS
            assert [request["transcript"] for request in vendor.received] == [f"{clause} " for clause in REPLY]
            [context_id] = {request["context_id"] for request in vendor.received}
            await vendor.quiet.wait()
            assert vendor.ended == [context_id] and vendor.canceled.empty()
            assert len(vendor.asked) == 1

    run(main())


@pytest.mark.parametrize(("language", "joined"), [("en-US", "Yes. No. "), ("ja", "Yes.No."), ("zh-CN", "Yes.No.")])
def test_a_space_stands_between_clauses_where_the_language_has_one(language: str, joined: str) -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            async with aclosing(engine.open(None, language, 1.0)) as reply:
                for clause in ("Yes.", "No."):
                    async with closing(reply.speak(clause)) as sound:
                        assert [pcm async for pcm in sound]
            assert "".join(request["transcript"] for request in vendor.received) == joined

    run(main())


def test_a_context_that_was_cut_off_is_canceled_once_and_another_one_goes_on() -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await (endless if message["transcript"] == "On and on " else cartesia_speaks)(socket, message)

    async def main() -> None:
        async with cartesia(speak) as (engine, vendor):
            async with aclosing(engine.open(None, "en", 1.0)) as reply:
                async with closing(reply.speak("On and on")) as sound:
                    await anext(sound)
                async with closing(reply.speak(CLAUSE)) as sound:
                    assert sum([len(pcm) async for pcm in sound]) == SAMPLES, "what still came is not heard"
            first, second = (request["context_id"] for request in vendor.received)
            await vendor.quiet.wait()
            assert vendor.canceled.get_nowait() == first and vendor.canceled.empty()
            assert vendor.ended == [second] != [first]

    run(main())


@pytest.mark.parametrize("tells_expiry", [True, False])
@pytest.mark.parametrize(("expires_s", "between_s"), [(1.0, 1.1), (0.2, 0.4), (0.2, 0.2)])
def test_a_context_that_expired_while_the_model_thought_is_followed_by_another(
    expires_s: float, between_s: float, tells_expiry: bool
) -> None:
    """As documented; earlier than that; and in the very moment of the next input."""

    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            vendor.expires_s, vendor.tells_expiry = expires_s, tells_expiry
            assert await tell(engine, REPLY, between_s) == LENGTHS
            spoken = [request["transcript"].rstrip() for request in vendor.received]
            assert list(dict.fromkeys(spoken)) == REPLY and len(spoken) <= 2 * len(REPLY) - 1
            assert len(vendor.asked) == 1
            if between_s > expires_s:
                assert len({request["context_id"] for request in vendor.received}) >= len(REPLY)

    run(main())


def test_a_refusal_is_not_taken_for_an_expired_context_twice() -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        if message["transcript"] == f"{REPLY[0]} ":
            await cartesia_speaks(socket, message)
        else:
            await socket.error(message["context_id"], 402, "quota_exceeded")

    async def main() -> None:
        async with cartesia(speak) as (engine, vendor):
            with pytest.raises(EngineError, match="no credit left"):
                await tell(engine, REPLY)
            assert [request["transcript"].rstrip() for request in vendor.received] == [REPLY[0], REPLY[1], REPLY[1]]

    run(main())


def test_a_connection_that_is_lost_between_two_clauses_costs_nothing() -> None:
    async def main() -> None:
        async with (
            cartesia(cartesia_speaks) as (engine, vendor),
            aclosing(engine.open(None, "en", 1.0)) as reply,
        ):
            for times, clause in enumerate(REPLY, 1):
                async with closing(reply.speak(clause)) as sound:
                    assert sum([len(pcm) async for pcm in sound]) == LENGTHS[times - 1]
                assert len(vendor.asked) == times
                vendor.sockets[-1].drop()
                await vendor.closed.get()
            assert [request["transcript"].rstrip() for request in vendor.received] == REPLY

    run(main())


def test_a_flush_of_nothing_does_not_end_the_next_clause() -> None:
    """Without buffering, a clause may count as flushed when it is spoken, and the flush behind it as another one."""

    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        await cartesia_speaks(socket, message)
        await socket.flush_done(message["context_id"], 1)

    async def main() -> None:
        async with cartesia(speak) as (engine, vendor):
            assert await tell(engine, REPLY) == LENGTHS
            assert len({request["context_id"] for request in vendor.received}) == 1

    run(main())


def test_rubbish_between_two_clauses_is_an_error_or_nothing_and_the_next_reply_is_spoken() -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks, {"VOCAL_CARTESIA_TIMEOUT_S": "0.5"}) as (engine, vendor):
            for rubbish in RUBBISH:
                async with aclosing(engine.open(None, "en", 1.0)) as reply:
                    async with closing(reply.speak(REPLY[0])) as sound:
                        assert sum([len(pcm) async for pcm in sound]) == LENGTHS[0]
                    ws = vendor.sockets[-1].ws
                    await (ws.send_str(rubbish) if isinstance(rubbish, str) else ws.send_bytes(rubbish))
                    async with closing(reply.speak(REPLY[1])) as sound:
                        try:
                            assert sum([len(pcm) async for pcm in sound]) == LENGTHS[1]
                        except EngineError as error:
                            told.append(str(error))
                assert await tell(engine, REPLY) == LENGTHS
        assert all("sent something that is no answer" in words for words in told)

    told: list[str] = []
    run(main())


def test_an_error_that_names_nobody_is_the_error_of_whoever_waits() -> None:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        if message["transcript"] == "Bad ":
            await socket.error(None, 500, None)
        else:
            await cartesia_speaks(socket, message)

    async def main() -> None:
        async with cartesia(speak) as (engine, _), aclosing(engine.open(None, "en", 1.0)) as idle:
            async with closing(idle.speak(REPLY[0])) as sound:
                assert [pcm async for pcm in sound]
            with pytest.raises(EngineError, match="out of order"):
                await speech(engine, "Bad")

    run(main())


def test_a_reply_connects_before_it_has_anything_to_say() -> None:
    async def main() -> None:
        async with cartesia(cartesia_speaks) as (engine, vendor):
            async with aclosing(engine.open(None, "en", 1.0)):
                await vendor.opened.wait()
            assert vendor.received == [] and vendor.canceled.empty()
            assert len(await speech(engine)) == SAMPLES
            assert len(vendor.asked) == 1

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
