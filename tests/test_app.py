"""The composition root and the process, whole: real sockets, real signals, the stand-in engines."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from media_server import server as server_module
from media_server.app import ENGINE_SET, HUB, create_app
from media_server.config import load
from media_server.log import SESSION, configure
from media_server.server import new_runner
from media_server.sessions import session_settings
from media_server.sockets import address, listen
from pipeline.errors import EngineUnavailable
from tests.browser import Server, serving
from tests.canary import KEY
from tests.rtc import until

ROOT = Path(__file__).parent.parent
STAND_INS = {
    "VOCAL_VAD": "energy",
    "VOCAL_STT": "scripted",
    "VOCAL_LLM": "echo",
    "VOCAL_TTS": "tone",
    "VOCAL_TURN": "silence",
}


@pytest.fixture(autouse=True)
def away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a server writes out of the developer's folder."""
    monkeypatch.chdir(tmp_path)


@asynccontextmanager
async def client(**settings: str) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """Run the application in this loop, with the stand-in engines."""
    async with TestClient(TestServer(create_app(load({**STAND_INS, **settings})))) as running:
        yield running


def test_the_parts_answer() -> None:
    async def main() -> None:
        async with client() as http:
            assert (await (await http.get("/healthz")).json()) == {"status": "ok"}
            ready = await http.get("/readyz")
            assert (ready.status, await ready.json()) == (200, {"status": "ready"})
            metrics = await http.get("/metrics")
            assert metrics.content_type == "text/plain"
            assert "vocal_sessions_active 0.0" in await metrics.text()
            page = await http.get("/")
            assert (page.status, page.content_type) == (200, "text/html")
            start = await (await http.post("/start", json={"enableDefaultIceServers": True, "body": {}})).json()
            assert set(start) == {"sessionId", "iceConfig"}

    asyncio.run(main())


def test_errors_have_one_shape() -> None:
    async def main() -> None:
        async with client() as http:
            for method, path, status in (("GET", "/nothing", 404), ("PUT", "/start", 405), ("POST", "/api/offer", 400)):
                answer = await http.request(method, path, data="rubbish")
                assert answer.status in (status, 415), path
                assert set((await answer.json())["error"]) == {"message", "type", "param"}

    asyncio.run(main())


def test_keys_guard_all_but_the_page_and_health() -> None:
    async def main() -> None:
        async with client(VOCAL_API_KEYS=f"one,{KEY}") as http:
            for path, status in (("/", 200), ("/healthz", 200), ("/readyz", 200), ("/metrics", 401)):
                assert (await http.get(path)).status == status, path
            assert (await http.post("/start", json={})).status == 401
            for key in ("one", KEY):
                answer = await http.get("/metrics", headers={"Authorization": f"Bearer {key}"})
                assert answer.status == 200

    asyncio.run(main())


def test_who_drains_is_not_ready_and_takes_no_call() -> None:
    async def main() -> None:
        async with client() as http:
            await http.app[HUB].drain(0)
            ready = await http.get("/readyz")
            assert (ready.status, (await ready.json())["reason"]) == (503, "draining")
            offer = await http.post("/api/offer", json={"sdp": "v=0", "type": "offer"})
            assert offer.status == 503
            assert int(offer.headers["Retry-After"]) > 0
            assert 'vocal_sessions_refused_total{reason="draining"} 1.0' in await (await http.get("/metrics")).text()
            assert (await http.get("/healthz")).status == 200

    asyncio.run(main())


def test_start_up_says_which_engine_and_why_in_order() -> None:
    async def main() -> None:
        async with client() as http:
            chosen = http.app[ENGINE_SET].served()
            assert list(chosen) == ["vad", "stt", "llm", "tts", "turn"]
            assert chosen["tts"].why == "tts tone: as configured"

    asyncio.run(main())


def test_an_engine_that_lacks_something_ends_the_start_and_leaves_nothing() -> None:
    async def main() -> None:
        server = TestServer(create_app(load({**STAND_INS, "VOCAL_TTS": "megaphone"})))
        with pytest.raises(EngineUnavailable, match="megaphone"):
            await server.start_server()

    asyncio.run(main())


def test_a_hiccup_while_starting_shuts_nobody_out() -> None:
    async def main() -> None:
        async with client(VOCAL_MAX_LOOP_LAG_MS="50") as http:
            time.sleep(0.3)  # noqa: ASYNC251 - the loop is to lag
            await asyncio.sleep(0.05)
            assert (await http.get("/readyz")).status == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "pause_ms", "waits_ms"),
    [
        ({}, 200, (200, 400, 1600)),
        ({"ENDPOINT_MS": "100"}, 50, (100, 100, 1600)),
        ({"ENDPOINT_MS": "3000"}, 200, (200, 3000, 3000)),
        ({"ENDPOINT_MIN_MS": "120", "ENDPOINT_MAX_MS": "1200"}, 120, (120, 400, 1200)),
    ],
)
def test_the_silence_rule_sets_what_depends_on_it(
    given: dict[str, str], pause_ms: int, waits_ms: tuple[int, int, int]
) -> None:
    settings = session_settings(load({f"VOCAL_{name}": value for name, value in given.items()}))
    turns = settings.turns
    assert (turns.endpoint_min_ms, turns.endpoint_ms, turns.endpoint_max_ms) == waits_ms
    assert settings.speech.pause_ms == pause_ms


# --- the process


def ended(server: Server) -> int:
    """Wait for the process to end and return its exit code."""
    return server.process.wait(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path, **STAND_INS) as server:
        server.process.send_signal(number)
        assert ended(server) == 0
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_sigterm_waits_for_the_calls_that_run_and_lets_nobody_else_in(tmp_path: Path) -> None:
    async def main(server: Server) -> None:
        speech = ROOT / "tests" / "fixtures" / "audio" / "go-forward.wav"
        call = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "media_server", "call", str(speech), "--url", server.url, cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with aiohttp.ClientSession(server.url) as http:
            await until(lambda: server.metric("vocal_sessions_active") == 1)
            server.process.send_signal(signal.SIGTERM)
            await until(lambda: "draining" in (tmp_path / "server.log").read_text())
            assert (await http.get("/readyz")).status == 503
            refused = await http.post("/api/offer", json={"sdp": "v=0", "type": "offer"})
            assert refused.status == 503
        out, errors = await call.communicate()
        assert (call.returncode, errors) == (0, b"")
        assert b"turn 1:" in out

    with serving(tmp_path, **STAND_INS, VOCAL_ECHO_TEXT="Yes.") as server:
        asyncio.run(main(server))
        assert ended(server) == 0


SLEEPY = """
import time

def create(settings):
    print("loading", flush=True)
    time.sleep(60)
"""


def test_a_second_signal_ends_it_even_while_an_engine_blocks(tmp_path: Path) -> None:
    environment = os.environ | STAND_INS | {"VOCAL_TTS": "sleepy.engine", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    (tmp_path / "sleepy").mkdir()
    (tmp_path / "sleepy" / "engine.py").write_text(SLEEPY)
    with subprocess.Popen(
        [sys.executable, "-m", "media_server", "serve", "--port", "0"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 128 + signal.SIGINT


async def answer_to(port: int, request: bytes) -> bytes:
    """Send what may be no HTTP at all, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """Serve over HTTP as the process does, on a port of its own."""
    runner = new_runner(create_app(load(STAND_INS)))
    await runner.setup()
    try:
        (sock,) = listen("127.0.0.1", 0)
        await web.SockSite(runner, sock).start()
        yield sock.getsockname()[1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1", "localhost"), ("127.0.0.2", "127.0.0.2"), ("localhost", "localhost"), ("0.0.0.0", "localhost")],
)
def test_the_address_that_is_announced_answers(host: str, name: str) -> None:
    (sock, *_) = listen(host, 0)
    with sock:
        url = address(host, [sock])
        assert url == f"http://{name}:{sock.getsockname()[1]}"
        socket.create_connection((name, sock.getsockname()[1])).close()


def test_an_ipv6_address_is_announced_in_brackets() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert address("::1", [sock]).startswith("http://[::1]:")


@pytest.mark.parametrize(
    "request_so_far", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
def test_a_connection_that_says_nothing_is_closed(request_so_far: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with listening() as port, asyncio.timeout(20):
            await answer_to(port, request_so_far)

    monkeypatch.setattr(server_module, "SILENT_S", 0.3)
    asyncio.run(main())


# --- logs


def logged(form: str, level: str = "INFO") -> io.StringIO:
    """Configure logging as the process does, but into a string."""
    stream = io.StringIO()
    configure(level, "json" if form == "json" else "text")
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    return stream


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Give the root logger back its handlers and level."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
def test_a_line_of_the_log_names_the_session_it_belongs_to() -> None:
    async def speak(name: str) -> None:
        SESSION.set(name)
        await asyncio.sleep(0)
        await asyncio.create_task(tell())

    async def tell() -> None:
        logging.getLogger("vocal.test").info("it was said %d times", 3)

    async def main() -> None:
        await asyncio.gather(speak("one"), speak("other"))

    stream = logged("text")
    asyncio.run(main())
    lines = stream.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "INFO    vocal.test session=one it was said 3 times",
        "INFO    vocal.test session=other it was said 3 times",
    ]


@pytest.mark.usefixtures("restored_logging")
def test_a_json_line_has_the_error_in_it() -> None:
    stream = logged("json")
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("vocal.test").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["message"], record["session"], record["level"]) == ("it failed", "-", "ERROR")
    assert "ValueError: boom" in record["error"]


@pytest.mark.usefixtures("restored_logging")
def test_nobody_forges_a_line_of_the_log() -> None:
    stream = logged("text")
    logging.getLogger("vocal.test").error("%s failed", "/a\n2026-01-01T00:00:00.000Z INFO all is well\x1b[2J\x9b2J")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r"/a\x0a2026-01-01T00:00:00.000Z INFO all is well\x1b[2J\x9b2J failed")


@pytest.mark.usefixtures("restored_logging")
def test_what_is_no_http_fills_no_log_and_leaks_no_key() -> None:
    async def main() -> None:
        async with listening() as port:
            for request in (
                b"GET /metrics\xff?access_token=hunter2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + b"hunter2" * 2000 + b"\r\n\r\n",
                b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nhunter2",
                b"\x16\x03\x01 rubbish",
            ):
                assert b" 400 " in await answer_to(port, request)

    stream = logged("text")
    asyncio.run(main())
    assert [line for line in stream.getvalue().splitlines() if "pipeline.database" not in line] == []


@pytest.mark.usefixtures("restored_logging")
def test_libraries_do_not_chat() -> None:
    stream = logged("text")
    logging.getLogger("aioice.ice").info("Check CandidatePair(...) State.FROZEN -> State.WAITING")
    logging.getLogger("aiortc.rtcrtpsender").debug("sent")
    logging.getLogger("aioice.ice").warning("something is wrong")
    assert stream.getvalue().count("\n") == 1
