"""ElevenLabs behind its real SDK, against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pipeline.audio import Pcm
from pipeline.engines import aclose
from pipeline.errors import EngineError, NotOffered
from pipeline.tasks import closing

from .vendors import (
    KEY,
    RATE_HZ,
    ElevenStitches,
    HttpVendor,
    Script,
    created,
    eleven_error,
    eleven_speaks,
    refusing,
    run,
    serving,
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


# --- the sound


# --- what a request continues

REPLY = ["Well, a canary sang.", "It was yellow.", "It sang.", "It sang again.", "Then it flew away."]


async def tell(engine: Any, clauses: list[str]) -> None:
    """Speak a reply, each clause to its end."""
    async with aclosing(engine.open(None, "en", 1.0)) as reply:
        for clause in clauses:
            async with closing(reply.speak(clause)) as sound:
                assert sum([len(pcm) async for pcm in sound]) == round(len(clause) * 0.06 * RATE_HZ)


def continued(vendor: HttpVendor) -> list[Any]:
    """Return what each request said that it continues."""
    fields = [{k: v for k, v in asked.body.items() if k.startswith(("previous", "next"))} for asked in vendor.asked]
    vendor.asked.clear()
    return [next(iter(previous.values())) if len(previous) == 1 else previous or None for previous in fields]


def test_a_clause_continues_the_three_requests_before_it_and_a_reply_begins_anew() -> None:
    async def main() -> None:
        stitches = ElevenStitches()
        async with elevenlabs(stitches.script) as (engine, vendor):
            await tell(engine, REPLY)
            ids = [f"request-{n}" for n in range(5)]
            assert continued(vendor) == [None, ids[:1], ids[:2], ids[:3], ids[1:4]]
            await asyncio.gather(tell(engine, REPLY[:2]), tell(engine, REPLY[:2]))
            first, second = (previous for previous in continued(vendor) if previous)
            assert len(first) == len(second) == 1 and first != second

    run(main())


def test_a_clause_that_was_cut_off_is_not_continued() -> None:
    async def main() -> None:
        async with elevenlabs(ElevenStitches().script) as (engine, vendor):
            async with aclosing(engine.open(None, "en", 1.0)) as reply:
                async with closing(reply.speak(REPLY[1] * 100)) as sound:
                    await anext(sound)
                async with closing(reply.speak(REPLY[2])) as sound:
                    assert [pcm async for pcm in sound]
            assert continued(vendor) == [None, None]

    run(main())


def test_requests_without_an_id_are_continued_by_their_words() -> None:
    async def main() -> None:
        async with elevenlabs(ElevenStitches(ids=False).script) as (engine, vendor):
            await tell(engine, REPLY[:3])
            assert continued(vendor) == [None, REPLY[0], f"{REPLY[0]} {REPLY[1]}"]
            await tell(engine, ["Long, " * 100 + "long.", "Enough, " * 100 + "enough.", "It."])
            assert len(continued(vendor)[-1]) == 1_000

    run(main())


@pytest.mark.parametrize(
    ("refuses", "asked_first", "asked_later"),
    [
        (("previous_request_ids",), [None, ["request-0"], REPLY[0]], [None, REPLY[0]]),
        (("previous_request_ids", "previous_text"), [None, ["request-0"], REPLY[0], None], [None, None]),
    ],
)
def test_a_model_that_refuses_to_continue_speaks_on_and_is_not_asked_again(
    refuses: tuple[str, ...], asked_first: list[Any], asked_later: list[Any]
) -> None:
    async def main() -> None:
        async with elevenlabs(ElevenStitches(refuses).script) as (engine, vendor):
            await tell(engine, REPLY[:2])
            assert continued(vendor) == asked_first
            await tell(engine, REPLY[:2])
            assert continued(vendor) == asked_later

    run(main())


@pytest.mark.parametrize("model", ["eleven_v3", "eleven_v3_conversational"])
def test_models_that_are_known_to_refuse_are_not_asked(model: str) -> None:
    async def main() -> None:
        stitches = ElevenStitches(("previous_request_ids", "previous_text"))
        async with elevenlabs(stitches.script, {"VOCAL_ELEVENLABS_MODEL": model}) as (engine, vendor):
            await tell(engine, REPLY[:3])
            assert continued(vendor) == [None] * 3

    run(main())


def test_a_refusal_for_another_reason_is_told_and_nothing_is_concluded() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        if (await request.json())["text"] == "Bad.":
            return web.json_response(eleven_error("invalid_text"), status=422)
        return await stitches.script(request)

    async def main() -> None:
        async with elevenlabs(script) as (engine, vendor):
            with pytest.raises(EngineError, match=r"did not accept the request \(422, invalid_text\)"):
                await tell(engine, [REPLY[0], "Bad."])
            assert continued(vendor) == [None, ["request-0"], REPLY[0], None]
            await tell(engine, REPLY[:2])
            assert continued(vendor) == [None, ["request-1"]]

    stitches = ElevenStitches()
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
    assert failure(refusing(422, {"detail": detail}))[0].endswith(
        "ElevenLabs did not accept the request (422); elevenlabs.io/app may say why"
    )


def test_the_wait_that_it_asks_for_is_told() -> None:
    assert failure(refusing(429, {}, {"Retry-After": "7"}))[0].endswith("(429); try again in 7 s")


def test_an_error_that_is_no_json_is_told_by_its_status() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text=f"<html>{KEY}</html>", content_type="text/html")

    assert failure(script)[0] == "tts elevenlabs: ElevenLabs is out of order (502); try again later"


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "audioish"])
def test_what_is_no_sound_is_not_spoken(content_type: str) -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"Welcome to the hotel's network", headers={"Content-Type": content_type})

    told, _ = failure(script)
    assert told == (
        f"tts elevenlabs: ElevenLabs sent something that is no answer ({content_type}); check ELEVENLABS_BASE_URL"
    )
