"""The operators' numbers and draining by hand: over HTTP, from a whole server with real calls."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from media_server.app import HUB
from media_server.hub import Call
from media_server.log import COMPLAINTS, MESSAGE_CHARS, SESSION, complaints
from media_server.metrics import RECENT_TURNS, STAGES, Metrics
from media_server.operating import STATUS
from media_server.recent import Percentiles, percentiles
from media_server.services import own_key, reaching
from pipeline.events import EngineFailed, TurnMeasured
from signaling.calls import CALLS
from tests.api_server import api_server, never
from tests.canary import KEY
from tests.raw_pcm import Caller as WebSocketCaller
from tests.rtc import until
from tests.rtc_caller import Caller
from tests.test_app import client

Http = TestClient[web.Request, web.Application]
log = logging.getLogger("vocal.test")

OPERATOR = "an-operators-key"
API = "a-callers-key"


@pytest.fixture(autouse=True)
def away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a server writes out of the developer's folder."""
    monkeypatch.chdir(tmp_path)


async def status(http: Http, key: str = "") -> dict[str, Any]:
    """Ask for it."""
    answer = await http.get("/api/status", headers={"Authorization": f"Bearer {key}"} if key else {})
    assert answer.status == 200, await answer.text()
    assert answer.headers["Cache-Control"] == "no-store"
    found: dict[str, Any] = await answer.json()
    return found


async def reaches(http: Http, state: str) -> dict[str, Any]:
    """Ask until the one session is in this state; return it."""
    async with asyncio.timeout(30):
        while True:
            [session] = (await status(http))["sessions"]
            if session["state"] == state:
                return dict(session)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def caller_of(http: Http) -> AsyncIterator[Caller]:
    """Call over WebRTC, hang up at the end."""
    caller = Caller()
    try:
        await caller.call(http.app[CALLS])
        yield caller
    finally:
        await caller.close()


def lose_every(nth: int, caller: Caller) -> None:
    """Lose one in so many of the packets that a caller sends."""
    transport = caller.connection.getTransceivers()[0].sender.transport
    send, sent = transport._send_rtp, 0

    async def lossy(data: bytes) -> None:
        nonlocal sent
        sent += 1
        if sent % nth:
            await send(data)

    transport._send_rtp = lossy  # type: ignore[method-assign]


# --- what is told


def test_a_server_at_rest() -> None:
    async def main() -> None:
        async with client(VOCAL_MAX_SESSIONS="7") as http:
            await asyncio.sleep(0.3)
            found = await status(http)
            assert (found["ready"], found["why_not"], found["draining"], found["may_drain"]) == (
                True,
                None,
                False,
                True,
            )
            assert (found["max_sessions"], found["running_sessions"], found["sessions"]) == (7, 0, [])
            assert found["uptime_s"] >= 0.3
            assert found["process"]["cpu_s"] > 0 and found["process"]["memory_bytes"] > 10_000_000
            assert found["loop_lag"]["n"] >= 1 and found["loop_lag"]["p95_ms"] >= found["loop_lag"]["p50_ms"] >= 0
            assert found["stages"] == {stage: {"n": 0, "p50_ms": None, "p95_ms": None} for stage in STAGES}
            assert found["totals"]["replies"] == {} and found["totals"]["started"] == 0
            assert [engine["name"] for engine in found["engines"]] == ["energy", "scripted", "echo", "tone", "silence"]
            assert all(engine["healthy"] and engine["own"] for engine in found["engines"])
            assert {engine["runs_on"] for engine in found["engines"]} == {"this process"}

    asyncio.run(main())


def test_a_call_shows_what_is_going_on_and_what_its_network_lost() -> None:
    slow = {"VOCAL_ECHO_TTFT_MS": "500", "VOCAL_ECHO_TEXT": "This takes a while.", "VOCAL_ENDPOINT_MS": "200"}

    async def main() -> None:
        async with client(**slow) as http, caller_of(http) as caller:
            lose_every(5, caller)
            call = http.app[HUB].calls[caller.call_id]
            seen = await reaches(http, "listening")
            assert (seen["id"], seen["way"], seen["agent"]) == (caller.call_id[:6], "webrtc", "Ada")
            assert (seen["turns"], seen["response_ms"]) == (0, None)
            speaking = asyncio.create_task(caller.say(0.6))
            await reaches(http, "caller speaking")
            await speaking
            await reaches(http, "thinking")
            await reaches(http, "agent speaking")
            seen = await reaches(http, "listening")
            assert seen["turns"] == 1 and 500 < seen["response_ms"] < 5_000
            assert seen["length_s"] > 1
            counted = call.transport.counts()
            assert 0 < seen["packets"]["lost"] <= counted["microphone_lost"]
            assert 0 < seen["packets"]["received"] <= counted["microphone_received"]
            assert seen["packets"]["recovered"] + seen["packets"]["concealed"] > 0
            found = await status(http)
            assert found["stages"]["first_audio"] == dict.fromkeys(("p50_ms", "p95_ms"), seen["response_ms"]) | {"n": 1}
            assert found["totals"]["replies"] == {"finished": 1}
            assert caller.call_id not in json.dumps(found), "with the whole id anybody could hang up"
            await http.app[CALLS].hang_up(caller.call_id)
            found = await status(http)
            assert (found["sessions"], found["totals"]["ended"]) == ([], {"hung up": 1})

    asyncio.run(main())


def test_a_call_over_a_websocket_counts_no_packets() -> None:
    async def main() -> None:
        async with client() as http, http.ws_connect("/ws/s1") as connection:
            caller = WebSocketCaller(connection)
            await caller.configure()
            [seen] = (await status(http))["sessions"]
            assert (seen["way"], seen["packets"]) == ("websocket", None)

    asyncio.run(main())


def test_an_engine_that_fails_is_counted_and_its_words_are_kept() -> None:
    async def main() -> None:
        async with client(VOCAL_TTS="tests.broken_voice") as http, caller_of(http) as caller:
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            caller.send("send-text", content="now break in the middle of a sentence")
            await until(lambda: sum(sample.value for sample in _samples(http, "replies")) > 0)
            found = await status(http)
            voice = next(engine for engine in found["engines"] if engine["kind"] == "tts")
            assert (voice["name"], voice["failures"]) == ("tests.broken_voice", 1)
            assert 0 <= voice["failed_s_ago"] < 10
            assert found["totals"]["failures"] == {"tts": 1}
            assert found["totals"]["replies"] == {"failed": 1}
            [line] = found["errors"]
            assert line["message"] == "reply 1: tts failed: the voice broke"
            assert (line["level"], line["session"], line["count"]) == ("WARNING", caller.call_id[:6], 1)

    asyncio.run(main())


def _samples(http: Http, name: str) -> list[Any]:
    return [s for f in http.app[STATUS].metrics.registry.collect() if f.name == f"vocal_{name}" for s in f.samples]


def test_an_engine_elsewhere_that_does_not_answer_is_named_and_so_is_where_it_is() -> None:
    nowhere = {"VOCAL_LLM": "openai_compatible", "VOCAL_LLM_URL": "http://127.0.0.1:9/v1", "VOCAL_LLM_API_KEY": KEY}

    async def main() -> None:
        async with client(**nowhere) as http:
            found = await status(http)
            model = next(engine for engine in found["engines"] if engine["kind"] == "llm")
            assert (model["healthy"], model["runs_on"]) == (False, "http://127.0.0.1:9")
            assert "VOCAL_LLM_URL" in model["why_not"]
            assert (found["ready"], found["why_not"]) == (False, f"llm: {model['why_not']}")
            assert KEY not in json.dumps(found)

    asyncio.run(main())


def test_an_engine_elsewhere_that_says_nothing_is_not_waited_for_long() -> None:
    async def main() -> None:
        async with api_server(never, never) as silent:
            elsewhere = {"VOCAL_LLM": "openai_compatible", "VOCAL_LLM_URL": silent.url}
            async with client(**elsewhere) as http:
                began_s = time.monotonic()
                found = await status(http)
                assert time.monotonic() - began_s < 15.0
                assert [engine["kind"] for engine in found["engines"] if not engine["healthy"]] == ["llm"]

    asyncio.run(main())


def test_an_engine_that_an_agent_named_is_in_use_too() -> None:
    async def main() -> None:
        async with client() as http:
            await http.app[STATUS].engines.get("llm", "eliza")
            engines = (await status(http))["engines"]
            assert [(e["name"], e["own"]) for e in engines if e["kind"] == "llm"] == [("echo", True), ("eliza", False)]

    asyncio.run(main())


def test_many_calls_make_neither_a_long_answer_nor_a_long_wait() -> None:
    async def main() -> None:
        async with client() as http, caller_of(http) as caller:
            board = http.app[STATUS]
            known = board.hub.calls[caller.call_id]
            for number in range(5_000):
                board.hub.calls[f"more-{number}"] = Call(f"{number}", known.transport, known.session)
            await board.now()
            began_s = time.process_time()
            found = await board.now()
            took_s = time.process_time() - began_s
            assert len(found.sessions) == 200
            assert found.sessions[0].id == "4999"
            assert took_s < 0.05, f"{took_s * 1000:.0f} ms of the event loop"
            for number in range(5_000):
                del board.hub.calls[f"more-{number}"]

    asyncio.run(main())


# --- percentiles


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Percentiles(0, None, None)),
        ([7.04], Percentiles(1, 7.0, 7.0)),
        ([1, 2], Percentiles(2, 1, 2)),
        (list(range(1, 101)), Percentiles(100, 50, 95)),
        ([5, 1, 4, 2, 3], Percentiles(5, 3, 5)),
    ],
)
def test_percentiles_are_values_that_were_measured(values: list[float], expected: Percentiles) -> None:
    assert percentiles(values) == expected


def test_only_the_newest_turns_count() -> None:
    metrics = Metrics()
    for _ in range(50):
        metrics.observe(TurnMeasured(1, False, "", "", endpoint_ms=9_000.0, stt_ms=9_000.0, ttft_ms=9_000.0))
    for _ in range(RECENT_TURNS):
        metrics.observe(TurnMeasured(1, False, "", "", endpoint_ms=100.0, stt_ms=80.0))
    assert metrics.recent_turns.percentiles("endpoint") == Percentiles(RECENT_TURNS, 100, 100)
    assert metrics.recent_turns.percentiles("ttft") == Percentiles(0, None, None)


def test_a_typed_turn_counts_from_no_sample_and_is_in_no_window() -> None:
    metrics = Metrics()
    metrics.observe(TurnMeasured(1, False, "", "", endpoint_ms=0.0, first_audio_ms=20.0))
    assert metrics.recent_turns.percentiles("first_audio") == Percentiles(0, None, None)
    assert "vocal_turn_stage_ms_count{" not in metrics.render().decode()


def test_words_are_in_no_window() -> None:
    metrics = Metrics()
    metrics.observe(TurnMeasured(1, False, "my secret", "your secret", endpoint_ms=1.0, stt_ms=1.0))
    metrics.observe(EngineFailed("llm", "secret prompt", 2))
    assert "secret" not in repr(vars(metrics.recent_turns)) + repr(metrics.failed_s)


# --- the newest errors


def test_what_strangers_send_cannot_forge_or_flood_the_list() -> None:
    with complaints() as kept:
        log.error("bad \x1b[2J\nname\x9b %s", "x" * 10_000)
        log.info("all is well")
        [line] = kept.newest_first()
    assert line.message.startswith(r"bad \x1b[2J\x0aname\x9b xxx")
    assert len(line.message) == MESSAGE_CHARS and line.message.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert line.message.isprintable()


def test_the_list_keeps_the_newest_and_counts_what_repeats() -> None:
    with complaints() as kept:
        for number in range(3 * COMPLAINTS):
            log.warning("warning %d", number)
        for _ in range(1_000):
            log.warning("again")
        lines = kept.newest_first()
    assert len(lines) == COMPLAINTS
    assert (lines[0].message, lines[0].count) == ("again", 1_000)
    assert (lines[1].message, lines[1].count) == (f"warning {3 * COMPLAINTS - 1}", 1)


def test_a_line_names_its_session_and_the_error_and_has_no_traceback() -> None:
    async def main() -> None:
        SESSION.set("3f2a")
        try:
            raise ValueError("what nobody foresaw")
        except ValueError:
            log.exception("it failed")

    with complaints() as kept:
        asyncio.run(main())
        [line] = kept.newest_first()
    assert (line.level, line.logger, line.session, line.message) == (
        "ERROR",
        "vocal.test",
        "3f2a",
        "it failed (ValueError)",
    )


def test_a_line_that_cannot_be_formatted_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with complaints() as kept:
        record = log.makeRecord(log.name, logging.ERROR, "", 0, "%d things", ("many",), None)
        kept.handle(record)
        assert kept.newest_first() == []


def test_two_servers_one_after_the_other_leave_no_handler() -> None:
    async def main() -> None:
        async with client():
            pass

    before = logging.getLogger().handlers[:]
    asyncio.run(main())
    assert logging.getLogger().handlers == before


# --- who may


KEYS = {"VOCAL_API_KEYS": API}
OPERATED = {**KEYS, "VOCAL_OPERATOR_KEYS": f"{OPERATOR}, another"}


@pytest.mark.parametrize(
    ("settings", "key", "look", "act", "may_drain"),
    [
        ({}, "", 200, 200, True),
        (KEYS, "", 401, 401, None),
        (KEYS, API, 200, 403, False),
        (OPERATED, "", 401, 401, None),
        (OPERATED, "wrong", 401, 401, None),
        (OPERATED, API, 403, 403, None),
        (OPERATED, OPERATOR, 200, 200, True),
        (OPERATED, "another", 200, 200, True),
        ({"VOCAL_OPERATOR_KEYS": OPERATOR}, "", 401, 401, None),
        ({"VOCAL_OPERATOR_KEYS": OPERATOR}, OPERATOR, 200, 200, True),
    ],
)
def test_who_may_look_and_who_may_drain(
    settings: dict[str, str], key: str, look: int, act: int, may_drain: bool | None
) -> None:
    async def main() -> None:
        async with client(**settings) as http:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            seen = await http.get("/api/status", headers=headers)
            assert seen.status == look
            assert (await seen.json()).get("may_drain") is may_drain
            answer = await http.post("/api/drain", headers=headers, json={"draining": True})
            assert answer.status == act
            assert http.app[HUB].draining is (act == 200)
            text = await seen.text() + await answer.text()
            assert OPERATOR not in text and API not in text
            if act == 403:
                assert "VOCAL_OPERATOR_KEYS" in (await answer.json())["error"]["message"]

    asyncio.run(main())


def test_an_operators_key_opens_all_that_a_callers_does() -> None:
    async def main() -> None:
        async with client(**OPERATED) as http:
            for path in ("/metrics", "/engines", "/agents"):
                for key in (API, OPERATOR):
                    assert (await http.get(path, headers={"Authorization": f"Bearer {key}"})).status == 200

    asyncio.run(main())


# --- draining by hand


def test_draining_by_hand_lets_nobody_in_and_is_undone_by_hand() -> None:
    async def main() -> None:
        async with client() as http, caller_of(http) as caller:
            answer = await http.post("/api/drain", json={"draining": True})
            assert (answer.status, await answer.json()) == (200, {"draining": True})
            ready = await http.get("/readyz")
            assert (ready.status, (await ready.json())["reason"]) == (503, "draining")
            found = await status(http)
            assert (found["draining"], found["ready"], found["why_not"]) == (True, False, "draining")
            refused = await http.post("/api/offer", json={"sdp": "v=0", "type": "offer"})
            assert refused.status == 503
            assert "lets nobody in for now" in (await refused.json())["error"]["message"]
            assert caller.call_id in http.app[HUB].calls, "running calls go on"
            answer = await http.post("/api/drain", json={"draining": False})
            assert (answer.status, await answer.json()) == (200, {"draining": False})
            assert (await http.get("/readyz")).status == 200
            assert (await status(http))["totals"]["refused"] == {"draining": 1}

    asyncio.run(main())


def test_the_end_is_not_undone_by_hand() -> None:
    async def main() -> None:
        async with client() as http:
            await http.app[HUB].drain(0)
            answer = await http.post("/api/drain", json={"draining": False})
            assert answer.status == 409
            assert "about to end" in (await answer.json())["error"]["message"]
            assert (await http.get("/readyz")).status == 503
            assert (await http.post("/api/drain", json={"draining": True})).status == 200

    asyncio.run(main())


@pytest.mark.parametrize("body", [{}, {"draining": "yes"}, {"draining": None}, {"draining": 1}, []])
def test_what_is_no_wish_is_refused_and_changes_nothing(body: object) -> None:
    async def main() -> None:
        async with client() as http:
            answer = await http.post("/api/drain", json=body)
            assert answer.status == 400
            assert http.app[HUB].draining is False

    asyncio.run(main())


def test_another_sites_page_drains_nothing() -> None:
    async def main() -> None:
        async with client() as http:
            headers = {"Origin": "https://elsewhere.example"}
            assert (await http.post("/api/drain", json={"draining": True}, headers=headers)).status == 403
            assert http.app[HUB].draining is False

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, ""),
        ({"VOCAL_API_KEYS": " one, two", "VOCAL_OPERATOR_KEYS": OPERATOR}, "one"),
        ({"VOCAL_API_KEYS": " , ", "VOCAL_OPERATOR_KEYS": f" {OPERATOR} "}, OPERATOR),
    ],
)
def test_a_server_opens_its_own_services_with_the_key_that_may_least(settings: dict[str, str], key: str) -> None:
    assert own_key(settings) == key
    assert reaching("tts", "http://127.0.0.1:1", settings)["VOCAL_TTS_API_KEY"] == key
