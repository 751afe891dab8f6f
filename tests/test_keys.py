"""Keys of all engines in one server that logs everything: none is told, whatever goes wrong. (See `tests.canary`.)"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import EngineError
from tests.browser import ROOT, Server, serving
from tests.canary import HUB_KEY, KEY, sings
from tests.vendors import all_vendors, eleven_error, refusing

KEYS = {
    "HUGGINGFACE_API_KEY": HUB_KEY,
    "VOCAL_API_KEYS": KEY,
    "VOCAL_OPERATOR_KEYS": KEY,
    "VOCAL_TURN_SECRET": KEY,
    "VOCAL_STT_API_KEY": KEY,
    "VOCAL_STT_URL": "http://127.0.0.1:9",
    **{f"{vendor}_API_KEY": KEY for vendor in ("GROQ", "ELEVENLABS", "CARTESIA")},
}
ENGINES = {"VOCAL_STT": "openai_compatible", "VOCAL_LLM": "groq", "VOCAL_TTS": "elevenlabs"}
NOWHERE = {f"{vendor}_BASE_URL": "http://127.0.0.1:9" for vendor in ("GROQ", "ELEVENLABS", "CARTESIA")}


def refused() -> dict[str, str]:
    """Return answers of vendors that quote the key."""
    return {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}, **eleven_error("x")}


@pytest.fixture(scope="module", params=["a vendor that takes it", "a vendor that does not", "no vendor"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with keys everywhere, and log at DEBUG."""
    with all_vendors(*([refusing(401, refused())] if "not" in request.param else [])) as vendors:
        elsewhere = NOWHERE if request.param == "no vendor" else vendors
        settings = {**elsewhere, **KEYS, **ENGINES, "VOCAL_LOG_LEVEL": "DEBUG"}
        with serving(tmp_path_factory.mktemp("server"), **settings) as running:
            yield running


def answer(server: Server, path: str, body: object | None = None) -> str:
    """Return what a client is told, the headers too."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}{path}", data, headers), timeout=20) as said:
            return f"{said.headers}\n{said.read().decode(errors='replace')}"
    except urllib.error.HTTPError as error:
        return f"{error.headers}\n{error.read().decode()}"


def test_no_key_is_told_to_clients_operators_or_logs(server: Server) -> None:
    told = [
        answer(server, "/chat", {"text": "Hello.", "session_id": "one"}),
        answer(server, "/tts", {"text": "Hello."}),
        *(answer(server, "/v1/audio/speech", {"input": "Hi.", "model": tts}) for tts in ("elevenlabs", "cartesia")),
        answer(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello."}], "stream": True}),
        answer(server, "/start", {"enableDefaultIceServers": True}),
        answer(server, "/readyz"),
        answer(server, "/engines"),
        answer(server, "/api/status"),
        answer(server, "/metrics"),
        server.log.read_text(),
    ]
    assert all(text.strip() for text in told)
    assert "vocal_engine_requests_total" in told[-2]
    assert [text for text in told if sings(text)] == []


def test_the_doctor_names_keys_and_tells_none(tmp_path: Path) -> None:
    settings = [f"--set={name}={value}" for name, value in {**KEYS, "CARTESIA_API_KEY": f"{KEY} with a blank"}.items()]
    command = [sys.executable, "-m", "media_server", "doctor", *settings]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "groq" in said.stdout
    assert not sings(said.stdout + said.stderr)


def test_the_watch_over_all_tests_sees_keys(no_key_is_told: list[str]) -> None:
    logging.getLogger("pipeline.cloud").warning("asking with %s", KEY)
    try:
        raise ValueError(HUB_KEY)
    except ValueError:
        logging.getLogger("httpx").exception("it failed")
    assert str(EngineError(f"the key {KEY} is wrong")).endswith("is wrong")
    assert len(no_key_is_told) == 3
    no_key_is_told.clear()
