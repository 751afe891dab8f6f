"""ElevenLabs behind its real SDK, against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
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
    RATE_HZ,
    HttpVendor,
    Script,
    begin,
    created,
    eleven_error,
    eleven_speaks,
    hang_up,
    nothing_is_ended_by_the_garbage_collector,
    refusing,
    run,
    serving,
    stall,
    tone,
)

CLAUSE = "A canary sang: how are you?"
FRAME = tone(480).astype("<i2").tobytes()


@asynccontextmanager
async def elevenlabs(script: Script, settings: Mapping[str, str] = {}) -> AsyncIterator[tuple[Any, HttpVendor]]:
    """Yield the engine and the server it asks."""
    vendor = HttpVendor(script)
    async with serving(vendor.handle) as url:
        access = {"ELEVENLABS_API_KEY": KEY, "ELEVENLABS_BASE_URL": url}
        engine = await created("tts", "elevenlabs", {**access, **settings})
        try:
            yield engine, vendor
        finally:
            await aclose(engine)


async def speech(engine: Any, clause: str = CLAUSE, voice: str | None = None, speed: float = 1.0) -> Pcm:
    chunks = [pcm async for pcm in engine.synthesize(clause, voice, "en-GB", speed)]
    assert all(pcm.dtype == np.int16 and pcm.ndim == 1 and len(pcm) for pcm in chunks)
    return np.concatenate([np.zeros(0, np.int16), *chunks])


def failure(script: Script, settings: Mapping[str, str] = {}, voice: str | None = None) -> tuple[str, int]:
    """Return what a user is told, and how often the server was asked."""
    told: list[tuple[str, int]] = []

    async def main() -> None:
        async with elevenlabs(script, settings) as (engine, vendor):
            with pytest.raises(EngineError) as caught:
                await speech(engine, voice=voice)
            told.append((str(caught.value), len(vendor.asked)))
            assert caught.value.__suppress_context__ or caught.value.__context__ is None

    run(main())
    assert KEY not in told[0][0]
    assert "canary" not in told[0][0]
    return told[0]


# --- what is asked


def test_it_asks_as_elevenlabs_wants_to_be_asked() -> None:
    async def main() -> None:
        async with elevenlabs(eleven_speaks) as (engine, vendor):
            await speech(engine)
            asked = vendor.asked[0]
        assert (asked.method, asked.path) == ("POST", "/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb/stream")
        assert asked.query == {"output_format": "pcm_24000"}
        assert asked.headers["xi-api-key"] == KEY
        assert asked.body == {"text": CLAUSE, "model_id": "eleven_flash_v2_5", "language_code": "en"}

    run(main())


@pytest.mark.parametrize(("speed", "asked"), [(0.25, 0.7), (0.9, 0.9), (1.1, 1.1), (4.0, 1.2)])
def test_speed_is_brought_within_what_it_takes(speed: float, asked: float) -> None:
    async def main() -> None:
        async with elevenlabs(eleven_speaks) as (engine, vendor):
            await speech(engine, speed=speed)
            settings = vendor.asked[0].body["voice_settings"]
            assert {name: value for name, value in settings.items() if value is not None} == {"speed": asked}

    run(main())


def test_voice_and_model_are_chosen_by_call_or_by_setting() -> None:
    settings = {"VOCAL_ELEVENLABS_VOICE": "JBFqnCBsd6RMkjVDRZzb", "VOCAL_ELEVENLABS_MODEL": "eleven_multilingual_v2"}

    async def main() -> None:
        async with elevenlabs(eleven_speaks, settings) as (engine, vendor):
            await speech(engine)
            await speech(engine, voice="f786b574-daa5-4673-aa0c-cbe3e8534c02")
            voices = [asked.path.split("/")[3] for asked in vendor.asked]
            assert voices == ["JBFqnCBsd6RMkjVDRZzb", "f786b574-daa5-4673-aa0c-cbe3e8534c02"]
            assert vendor.asked[0].body["model_id"] == "eleven_multilingual_v2"
            assert "language_code" not in vendor.asked[0].body  # this model refuses it

    run(main())


@pytest.mark.parametrize("voice", ["", "../../v1/user", "a/b", "a?b=c", "x" * 65, "\u00fc", "a\n"])
def test_a_voice_that_can_be_no_id_is_never_asked_for(voice: str) -> None:
    told, times = failure(eleven_speaks, voice=voice)
    assert "is no voice's id at ElevenLabs" in told
    assert times == 0
    assert len(told) < 200


async def one_frame(request: web.Request) -> web.StreamResponse:
    """Speak any text in 20 ms."""
    return web.Response(body=FRAME, content_type="audio/pcm")


def test_a_voice_or_language_it_does_not_have_may_be_replaced_by_another() -> None:
    async def main() -> None:
        for voice in ("../user", "nobody"):
            async with elevenlabs(eleven_speaks) as (engine, _):
                with pytest.raises(NotOffered):
                    await speech(engine, voice=voice)
        async with elevenlabs(refusing(400, eleven_error("unsupported_language"))) as (engine, _):
            with pytest.raises(NotOffered):
                await speech(engine)

    run(main())


def test_nothing_is_not_asked_for_and_much_is_asked_for_in_pieces() -> None:
    words = ["word"] * 2_000

    async def main() -> None:
        async with elevenlabs(one_frame) as (engine, vendor):
            assert len(await speech(engine, " \n")) == len(vendor.asked) == 0
            samples = len(await speech(engine, " ".join(words)))
            texts = [asked.body["text"] for asked in vendor.asked]
            assert " ".join(texts).split() == words
            assert max(map(len, texts)) <= 2_500
            assert samples == 480 * len(texts)

    run(main())


# --- the sound


@pytest.mark.parametrize("cut", [1, 2, 3, 959, 961, 4097, 100_000])
def test_a_sine_comes_out_as_it_went_in_however_it_is_cut(cut: int) -> None:
    sine = tone(3_000, 997.0)

    async def script(request: web.Request) -> web.StreamResponse:
        octets = sine.astype("<i2").tobytes()
        response = await begin(request, "audio/pcm")
        for i in range(0, len(octets), cut):
            await response.write(octets[i : i + cut])
        return response

    async def main() -> None:
        async with elevenlabs(script) as (engine, _):
            assert engine.rate_hz == RATE_HZ
            assert np.array_equal(await speech(engine), sine)

    run(main())


def test_the_first_frame_comes_before_the_next_is_sent() -> None:
    async def main() -> None:
        heard = asyncio.Event()

        async def script(request: web.Request) -> web.StreamResponse:
            response = await begin(request, "audio/pcm")
            await response.write(FRAME)
            await heard.wait()
            await response.write(FRAME + FRAME[:100])
            return response

        async with elevenlabs(script) as (engine, _), closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound:
            assert len(await anext(sound)) == 480
            heard.set()
            assert sum([len(pcm) async for pcm in sound]) == 530

    run(main())


def test_closing_ends_the_request_and_leaves_nothing() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "audio/pcm")
        await response.write(FRAME * 3)
        return await stall(request)

    async def main() -> None:
        async with elevenlabs(script) as (engine, vendor):
            for _ in range(20):
                vendor.left.clear()
                async with closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound:
                    assert len(await anext(sound))
                await vendor.left.wait()
            await nothing_is_ended_by_the_garbage_collector()

    run(main())


def test_canceling_while_it_waits_ends_the_request() -> None:
    async def main() -> None:
        async with elevenlabs(stall) as (engine, vendor):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(speech(engine), 0.2)
            await vendor.left.wait()

    run(main())


def test_several_speak_at_once_and_later_ones_find_a_warm_connection() -> None:
    async def main() -> None:
        async with elevenlabs(eleven_speaks) as (engine, vendor):
            lengths = [len(pcm) for pcm in await asyncio.gather(*(speech(engine) for _ in range(5)))]
            assert len(set(lengths)) == 1
            first = {asked.peer for asked in vendor.asked}
            assert len(first) == 5
            for _ in range(3):
                await speech(engine)
            assert {asked.peer for asked in vendor.asked} == first

    run(main())


# --- what goes wrong, in words

REFUSALS = [
    (401, "invalid_api_key", {}, "does not take the key in ELEVENLABS_API_KEY (401, invalid_api_key); see elevenlabs"),
    (401, "quota_exceeded", {}, "the account at ElevenLabs has no credit left, or its plan lacks this (401, quota_"),
    (
        401,
        "missing_permissions",
        {},
        "the key in ELEVENLABS_API_KEY may not be used for this (401, missing_permissions",
    ),
    (402, "payment_required", {}, "the account at ElevenLabs has no credit left, or its plan lacks this (402, payment"),
    (403, None, {}, "the key in ELEVENLABS_API_KEY may not be used for this (403)"),
    (404, "voice_not_found", {}, "does not have the voice 'JBFqnCBsd6RMkjVDRZzb' (404, voice_not_found)"),
    (400, "voice_not_found", {}, "does not have the voice 'JBFqnCBsd6RMkjVDRZzb' (400, voice_not_found)"),
    (400, "model_not_found", {}, "does not have the model 'eleven_flash_v2_5' (400, model_not_found); see VOCAL_"),
    (404, None, {}, "by that name (404); check VOCAL_ELEVENLABS_MODEL and ELEVENLABS_BASE_URL"),
    (400, "max_character_limit_exceeded", {}, "was given more text than it takes at once"),
    (400, "invalid_uid", {}, "does not have the voice 'JBFqnCBsd6RMkjVDRZzb' (400, invalid_uid)"),
    (422, "unsupported_language", {}, "does not have this language for eleven_flash_v2_5 (422, unsupported_language)"),
    (422, "invalid_text", {}, "did not accept the request (422, invalid_text)"),
    (429, "too_many_concurrent_requests", {"Retry-After": "3"}, "takes no more requests for now (429, too_many"),
    (429, "system_busy", {}, "(429, system_busy); try again later"),
    (500, None, {}, "ElevenLabs is out of order (500); try again later"),
    (503, None, {}, "ElevenLabs is out of order (503); try again later"),
    (307, None, {"Location": "http://127.0.0.1:9/"}, "did not accept the request (307)"),
]


@pytest.mark.parametrize(("status", "code", "headers", "words"), REFUSALS)
def test_a_refusal_is_told_in_words_and_not_repeated(
    status: int, code: str | None, headers: dict[str, str], words: str
) -> None:
    told, times = failure(refusing(status, eleven_error(code) if code else {"detail": CLAUSE}, headers))
    assert told.startswith("tts elevenlabs: ")
    assert words in told
    assert times == 1


def test_what_it_finds_wrong_with_a_field_is_not_quoted() -> None:
    detail = [{"type": "string_too_long", "loc": ["body", "text"], "msg": "too long", "input": CLAUSE}]
    assert failure(refusing(422, {"detail": detail}))[0].endswith("ElevenLabs did not accept the request (422)")


def test_the_wait_that_it_asks_for_is_told() -> None:
    assert failure(refusing(429, {}, {"Retry-After": "7"}))[0].endswith("(429); try again in 7 s")


def test_an_error_that_is_no_json_is_told_by_its_status() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text=f"<html>{KEY}</html>", content_type="text/html")

    assert failure(script)[0] == "tts elevenlabs: ElevenLabs is out of order (502); try again later"


def test_a_lost_connection_is_tried_once_more_and_only_before_the_first_sound() -> None:
    async def drop_first(request: web.Request) -> web.StreamResponse:
        return await (eleven_speaks if drops.pop() else hang_up)(request)

    async def main() -> None:
        async with elevenlabs(drop_first) as (engine, _):
            assert len(await speech(engine)) == len(CLAUSE) * 0.06 * RATE_HZ

    drops = [True, False]
    run(main())
    assert failure(hang_up) == ("tts elevenlabs: the connection to ElevenLabs was lost", 2)


def test_a_clause_that_breaks_off_is_never_spoken_twice() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "audio/pcm")
        await response.write(FRAME)
        return await hang_up(request)

    async def main() -> None:
        async with (
            elevenlabs(script) as (engine, vendor),
            closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound,
        ):
            assert len(await anext(sound)) == 480
            with pytest.raises(EngineError, match="the connection to ElevenLabs was lost"):
                await anext(sound)
            assert len(vendor.asked) == 1

    run(main())


def test_silence_is_told_after_the_time_that_was_set() -> None:
    async def stall_later(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "audio/pcm")
        await response.write(FRAME)
        return await stall(request)

    limit = {"VOCAL_ELEVENLABS_TIMEOUT_S": "0.3"}
    assert failure(stall, limit) == ("tts elevenlabs: ElevenLabs sent nothing for 0.3 s", 1)
    assert failure(stall_later, limit) == ("tts elevenlabs: ElevenLabs sent nothing for 0.3 s", 1)


def test_a_host_that_is_not_there_is_named() -> None:
    async def main() -> None:
        async with serving(stall) as url:
            pass
        engine = await created("tts", "elevenlabs", {"ELEVENLABS_API_KEY": KEY, "ELEVENLABS_BASE_URL": url})
        with pytest.raises(EngineError, match=r"cannot be reached at 127.0.0.1; .* ELEVENLABS_BASE_URL$"):
            await speech(engine)
        await aclose(engine)
        await aclose(engine)
        with pytest.raises(EngineError):
            await speech(engine)

    run(main())


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "audioish"])
def test_what_is_no_sound_is_not_spoken(content_type: str) -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"Welcome to the hotel's network", headers={"Content-Type": content_type})

    told, _ = failure(script)
    assert told == (
        f"tts elevenlabs: ElevenLabs sent something that is no answer ({content_type}); check ELEVENLABS_BASE_URL"
    )


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_log_has_no_key_and_above_debug_no_words(level: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with elevenlabs(eleven_speaks) as (engine, _):
            await speech(engine)

    caplog.set_level(level)
    run(main())
    failure(refusing(401, eleven_error("invalid_api_key")))
    ours = [r for r in caplog.records if r.name.split(".")[0] not in ("aiohttp", "asyncio")]
    assert not [r for r in ours if KEY in r.getMessage()]
    assert not [r for r in ours if "canary" in r.getMessage() and r.levelno > logging.DEBUG]


# --- what it needs


def test_it_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    describe = module("tts", "elevenlabs").describe
    assert describe({}).lacks == "ELEVENLABS_API_KEY"
    assert describe({"ELEVENLABS_API_KEY": KEY}).lacks is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert describe({"ELEVENLABS_API_KEY": KEY}).lacks == "pip install vocal-node[cloud]"
    with pytest.raises(EngineUnavailable, match=r"pip install vocal-node\[cloud\]"):
        load("tts", "elevenlabs", {"ELEVENLABS_API_KEY": KEY})


def test_a_key_is_reason_enough_to_take_it() -> None:
    assert usable("tts", {"ELEVENLABS_API_KEY": KEY})[0][0] == "elevenlabs"
    chosen = choose("tts", "auto", {"ELEVENLABS_API_KEY": KEY})
    assert chosen.why.startswith("tts elevenlabs: ElevenLabs, eleven_flash_v2_5 in the cloud")
    run(aclose(chosen.engine))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ELEVENLABS_API_KEY": "a key"}, "a usable ELEVENLABS_API_KEY"),
        ({"ELEVENLABS_BASE_URL": "ftp://x"}, "a usable ELEVENLABS_BASE_URL"),
        ({"VOCAL_ELEVENLABS_TIMEOUT_S": "soon"}, "VOCAL_ELEVENLABS_TIMEOUT_S must be"),
        ({"VOCAL_ELEVENLABS_VOICE": "../user"}, "VOCAL_ELEVENLABS_VOICE"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, str], words: str) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        load("tts", "elevenlabs", {"ELEVENLABS_API_KEY": KEY, **settings})
