"""Groq behind its real SDK, against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from aiohttp import web

from pipeline.engines import aclose, choose, load, module, usable
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.events import Message
from pipeline.tasks import closing

from .vendors import (
    KEY,
    HttpVendor,
    Script,
    begin,
    created,
    delta,
    hang_up,
    nothing_is_ended_by_the_garbage_collector,
    refusing,
    run,
    saying,
    serving,
    stall,
)

PROMPT = "canary prompt: be kind"
LIBRARIES = ("anyio", "groq", "httpcore", "httpx")
ROOT = Path(__file__).parent.parent
ASKED = [Message("system", PROMPT), Message("user", "Hello?"), Message("assistant", "Yes?"), Message("user", "Tea.")]
DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def groq(script: Script, settings: Mapping[str, str] = {}) -> AsyncIterator[tuple[Any, HttpVendor]]:
    """Yield the engine and the server it asks."""
    vendor = HttpVendor(script)
    async with serving(vendor.handle) as url:
        engine = await created("llm", "groq", {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": url, **settings})
        try:
            yield engine, vendor
        finally:
            await aclose(engine)


async def answer(engine: Any) -> list[str]:
    return [delta async for delta in engine.complete(ASKED)]


def body_of(settings: Mapping[str, str]) -> Any:
    """Return what is asked with these settings."""
    asked = []

    async def main() -> None:
        async with groq(saying("Hi."), settings) as (engine, vendor):
            await answer(engine)
            asked.append(vendor.asked[0].body)

    run(main())
    return asked[0]


def failure(script: Script, settings: Mapping[str, str] = {}) -> tuple[str, int]:
    """Return what a user is told, and how often the server was asked."""
    told: list[tuple[str, int]] = []

    async def main() -> None:
        async with groq(script, settings) as (engine, vendor):
            with pytest.raises(EngineError) as caught:
                await answer(engine)
            told.append((str(caught.value), len(vendor.asked)))
            assert caught.value.__suppress_context__  # a traceback would quote the vendor

    run(main())
    assert KEY not in told[0][0]
    assert "canary" not in told[0][0]
    return told[0]


# --- what is asked


def test_it_asks_as_groq_wants_to_be_asked() -> None:
    async def main() -> None:
        async with groq(saying("Of ", "course.")) as (engine, vendor):
            assert await answer(engine) == ["Of ", "course."]
            asked = vendor.asked[0]
        assert (asked.method, asked.path) == ("POST", "/openai/v1/chat/completions")
        assert asked.headers["Authorization"] == f"Bearer {KEY}"
        assert asked.body["stream"] is True
        assert asked.body["messages"] == [
            {"role": "system", "content": PROMPT},
            {"role": "user", "content": "Hello?"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Tea."},
        ]

    run(main())


def test_its_own_model_thinks_little_and_never_aloud() -> None:
    body = body_of({})
    del body["messages"]
    assert body == {
        "model": "openai/gpt-oss-120b",
        "temperature": 0.7,
        "max_completion_tokens": 1024,
        "reasoning_effort": "low",
        "include_reasoning": False,
        "stream": True,
    }


def test_settings_choose_model_temperature_length_and_thought() -> None:
    chosen = {"VOCAL_GROQ_MODEL": "plain", "VOCAL_GROQ_TEMPERATURE": "0", "VOCAL_GROQ_MAX_TOKENS": "99"}
    body = body_of(chosen)
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("plain", 0, 99)
    assert not {"reasoning_effort", "include_reasoning", "reasoning_format"} & body.keys()
    body = body_of({"VOCAL_GROQ_MODEL": "qwen/qwen3.8-27b"})
    assert (body["reasoning_effort"], body["reasoning_format"]) == ("none", "hidden")
    assert body_of({"VOCAL_GROQ_REASONING_EFFORT": "high"})["reasoning_effort"] == "high"


# --- the stream


def test_each_delta_comes_before_the_next_is_sent() -> None:
    async def main() -> None:
        heard = asyncio.Event()

        async def script(request: web.Request) -> web.StreamResponse:
            response = await begin(request, "text/event-stream")
            await response.write(delta(content="First"))
            await heard.wait()
            await response.write(delta(content=" second.") + delta("stop") + DONE)
            return response

        async with groq(script) as (engine, _), closing(engine.complete(ASKED)) as deltas:
            assert await anext(deltas) == "First"
            heard.set()
            assert [delta async for delta in deltas] == [" second."]

    run(main())


def test_thoughts_and_chunks_without_a_choice_are_not_spoken() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "text/event-stream")
        await response.write(delta(reasoning="hm") + delta(content="Yes.") + b'data: {"choices": []}\n\n')
        await response.write(delta("stop") + DONE)
        return response

    async def main() -> None:
        async with groq(script) as (engine, _):
            assert await answer(engine) == ["Yes."]

    run(main())


def test_closing_ends_the_request_and_leaves_nothing() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "text/event-stream")
        await response.write(delta(content="One") + delta(content="Two"))
        return await stall(request)

    async def main() -> None:
        async with groq(script) as (engine, vendor):
            took_s = []
            for _ in range(20):
                vendor.left.clear()
                async with closing(engine.complete(ASKED)) as deltas:
                    assert await anext(deltas) == "One"
                    began_s = asyncio.get_running_loop().time()
                await vendor.left.wait()
                took_s.append(asyncio.get_running_loop().time() - began_s)
            assert median(took_s) < 0.05, "from closing to the vendor's knowing"
            await nothing_is_ended_by_the_garbage_collector()

    run(main())


def test_canceling_while_it_waits_ends_the_request() -> None:
    async def main() -> None:
        async with groq(stall) as (engine, vendor):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer(engine), 0.2)
            await vendor.left.wait()

    run(main())


def test_several_are_answered_at_once_and_later_ones_find_a_warm_connection() -> None:
    async def main() -> None:
        async with groq(saying("Yes.")) as (engine, vendor):
            assert await asyncio.gather(*(answer(engine) for _ in range(5))) == [["Yes."]] * 5
            first = {asked.peer for asked in vendor.asked}
            assert len(first) == 5
            for _ in range(3):
                await answer(engine)
            assert {asked.peer for asked in vendor.asked} == first

    run(main())


def test_nothing_is_imported_while_a_caller_waits() -> None:
    program = f"""
import asyncio, sys
from pipeline.events import Message
from tests.vendors import KEY, HttpVendor, created, saying, serving

async def main():
    async with serving(HttpVendor(saying("Yes.")).handle) as url:
        engine = await created("llm", "groq", {{"GROQ_API_KEY": KEY, "GROQ_BASE_URL": url}})
        before = set(sys.modules)
        assert [delta async for delta in engine.complete([Message("user", "Tea?")])] == ["Yes."]
        late = [name for name in set(sys.modules) - before if name.split(".")[0] in {LIBRARIES}]
        assert not late, late
        await engine.aclose()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- what goes wrong, in words

REFUSALS = [
    (401, "invalid_api_key", {}, "does not take the key in GROQ_API_KEY (401, invalid_api_key); see console.groq.com"),
    (402, None, {}, "the account at Groq has no credit left"),
    (403, None, {}, "the key in GROQ_API_KEY may not be used for this (403)"),
    (
        404,
        "model_not_found",
        {},
        "does not have the model 'openai/gpt-oss-120b' (404, model_not_found); see VOCAL_GROQ",
    ),
    (400, "model_decommissioned", {}, "does not have the model 'openai/gpt-oss-120b' (400, model_decom"),
    (404, None, {}, "by that name (404); check VOCAL_GROQ_MODEL and GROQ_BASE_URL"),
    (413, "request_too_large", {}, "was given more text than it takes at once"),
    (422, None, {}, "did not accept the request (422)"),
    (400, "json_validate_failed", {}, "did not accept the request (400, json_validate_failed)"),
    (429, "rate_limit_exceeded", {"Retry-After": "7"}, "takes no more requests for now (429, rate_limit_exceeded); "),
    (498, "capacity_exceeded", {}, "did not accept the request (498, capacity_exceeded)"),
    (500, None, {}, "Groq is out of order (500); try again later"),
    (503, None, {"Retry-After": "30"}, "Groq is out of order (503); try again later"),
    (307, None, {"Location": "http://127.0.0.1:9/"}, "did not accept the request (307)"),
]


@pytest.mark.parametrize(("status", "code", "headers", "words"), REFUSALS)
def test_a_refusal_is_told_in_words_and_not_repeated(
    status: int, code: str | None, headers: dict[str, str], words: str
) -> None:
    error = {"message": f"{KEY} {PROMPT}", "type": "invalid_request_error", **({"code": code} if code else {})}
    told, times = failure(refusing(status, {"error": error}, headers))
    assert told.startswith("llm groq: ")
    assert words in told
    assert times == 1


@pytest.mark.parametrize(
    ("retry_after", "when"),
    [("7", "in 7 s"), ("2.5", "in 2.5 s"), ("soon", "later"), ("9" * 99, "later"), ("-1", "later")],
)
def test_the_wait_that_groq_asks_for_is_told(retry_after: str, when: str) -> None:
    assert failure(refusing(429, {}, {"Retry-After": retry_after}))[0].endswith(f"(429); try again {when}")


@pytest.mark.parametrize("code", ["Say it again", "x" * 65, 7, None, ["a"], {"a": 1}])
def test_only_a_code_is_taken_from_an_error(code: object) -> None:
    assert "out of order (500);" in failure(refusing(500, {"error": {"code": code}}))[0]


def test_a_lost_connection_is_tried_once_more_and_only_before_the_first_word() -> None:
    async def drop_first(request: web.Request) -> web.StreamResponse:
        script = saying("Yes.") if drops.pop() else hang_up
        return await script(request)

    async def main() -> None:
        async with groq(drop_first) as (engine, _):
            assert await answer(engine) == ["Yes."]

    drops = [True, False]
    run(main())
    assert failure(hang_up) == ("llm groq: the connection to Groq was lost; try again", 2)


@pytest.mark.parametrize("ending", ["reset", "end"])
def test_an_answer_that_breaks_off_is_never_said_twice(ending: str) -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "text/event-stream")
        await response.write(delta(content="Half"))
        return await hang_up(request) if ending == "reset" else response

    async def main() -> None:
        async with groq(script) as (engine, vendor):
            async with closing(engine.complete(ASKED)) as words:
                assert await anext(words) == "Half"
                with pytest.raises(EngineError, match="the connection to Groq was lost"):
                    await anext(words)
            assert len(vendor.asked) == 1

    run(main())


def test_silence_is_told_after_the_time_that_was_set() -> None:
    async def stall_later(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "text/event-stream")
        await response.write(delta(role="assistant"))
        return await stall(request)

    limit = {"VOCAL_GROQ_TIMEOUT_S": "0.3"}
    assert failure(stall, limit) == ("llm groq: Groq sent nothing for 0.3 s; try again later", 1)
    assert failure(stall_later, limit) == ("llm groq: Groq sent nothing for 0.3 s; try again later", 1)


def test_a_host_that_is_not_there_is_named_without_the_rest_of_its_url() -> None:
    async def main() -> None:
        async with serving(stall) as url:
            pass
        engine = await created("llm", "groq", {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": f"{url}/canary"})
        with pytest.raises(EngineError, match=r"Groq cannot be reached at 127.0.0.1; .*GROQ_BASE_URL$"):
            await answer(engine)
        await aclose(engine)
        with pytest.raises(EngineError):
            await answer(engine)

    run(main())


RUBBISH = [
    ("text/event-stream", b"data: {nonsense\n\n"),
    ("text/event-stream", b"data: [1, 2]\n\n"),
    ("text/event-stream", b'data: {"choices": 7}\n\n'),
    ("text/event-stream", b'data: {"choices": [{"delta": null}]}\n\n'),
    ("text/event-stream", b"data: \xff\xfe\n\n"),
    ("text/html", b"<html>Welcome to the hotel's network</html>"),
    ("application/json", b"{}"),
]


@pytest.mark.parametrize(("content_type", "body"), RUBBISH)
def test_rubbish_is_an_error_and_no_answer(content_type: str, body: bytes) -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, content_type)
        await response.write(body)
        return response

    told, times = failure(script)
    assert told.startswith("llm groq: Groq sent something that is no answer (")
    assert times == 1


def test_an_error_within_the_stream_is_told() -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = await begin(request, "text/event-stream")
        await response.write(b'event: error\ndata: {"error": {"message": "canary", "code": "over_capacity"}}\n\n')
        return response

    assert failure(script)[0] == "llm groq: Groq is out of order (500, over_capacity); try again later"


def test_an_answer_that_was_all_thought_is_told() -> None:
    assert failure(saying(finish="length"))[0].startswith("llm groq: the model gave no words (length); raise VOCAL_")


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_log_has_no_key_and_above_debug_no_prompt(level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(level)
    body_of({})
    failure(refusing(401, {"error": {"message": KEY}}))
    ours = [r for r in caplog.records if r.name.split(".")[0] not in ("aiohttp", "asyncio")]
    assert not [r for r in ours if KEY in r.getMessage()]
    assert not [r for r in ours if "canary" in r.getMessage() and r.levelno > logging.DEBUG]


# --- what it needs


def test_it_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    describe = module("llm", "groq").describe
    assert describe({}).lacks == describe({"GROQ_API_KEY": " "}).lacks == "GROQ_API_KEY"
    assert describe({"GROQ_API_KEY": KEY}).lacks is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert describe({"GROQ_API_KEY": KEY}).lacks == "pip install vocal-node[cloud]"
    with pytest.raises(EngineUnavailable, match=r"pip install vocal-node\[cloud\]"):
        load("llm", "groq", {"GROQ_API_KEY": KEY})


def test_a_key_is_reason_enough_to_take_it() -> None:
    assert usable("llm", {"GROQ_API_KEY": KEY})[0][0] == "groq"
    chosen = choose("llm", "auto", {"GROQ_API_KEY": KEY})
    assert chosen.why.startswith("llm groq: Groq, openai/gpt-oss-120b in the cloud")
    run(aclose(chosen.engine))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"GROQ_API_KEY": "a key"}, "a usable GROQ_API_KEY"),
        ({"GROQ_API_KEY": "schlüssel"}, "a usable GROQ_API_KEY"),
        ({"GROQ_API_KEY": "a\r\nb: c"}, "a usable GROQ_API_KEY"),
        ({"GROQ_BASE_URL": "api.groq.com"}, "a usable GROQ_BASE_URL"),
        ({"VOCAL_GROQ_TEMPERATURE": "hot"}, "VOCAL_GROQ_TEMPERATURE must be"),
        ({"VOCAL_GROQ_MAX_TOKENS": "0"}, "VOCAL_GROQ_MAX_TOKENS must be"),
        ({"VOCAL_GROQ_TIMEOUT_S": "0"}, "VOCAL_GROQ_TIMEOUT_S must be"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, str], words: str) -> None:
    with pytest.raises(EngineUnavailable, match=words) as caught:
        load("llm", "groq", {"GROQ_API_KEY": KEY, **settings})
    assert settings.get("GROQ_API_KEY", "none") not in str(caught.value)
