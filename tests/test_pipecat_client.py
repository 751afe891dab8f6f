"""Pipecat's own JavaScript client, unmodified, in a real browser against a real server of another origin."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser import WAIT_MS, browsing, recording, serving, wait_until_nobody_is_left, words_of, write_microphone

CLIENT = Path(__file__).parent / "pipecat_client"
SAID = "austen-0880"

MOST_WORDS = """(spoken) => pipecat.seen.transcripts.some(({ text, final }) => {
  const words = text.toLowerCase().split(" ");
  return final && spoken.filter((word) => words.includes(word)).length >= 0.6 * spoken.length;
})"""


@pytest.fixture(scope="module")
def client() -> Path:
    """Install the client as its lock file has it and bundle it with the test's page; return the folder to serve."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine: apt-get install npm")
    installed, lock = CLIENT / "node_modules" / ".package-lock.json", CLIENT / "package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run([npm, "ci", "--loglevel=error"], cwd=CLIENT, check=True, timeout=110)
    subprocess.run([npm, "run", "--silent", "build"], cwd=CLIENT, check=True, timeout=60)
    return CLIENT / "build"


@contextmanager
def page_server(folder: Path) -> Iterator[str]:
    """Serve the page's files from an origin of their own."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split(" port ")[1].split()[0]
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_it_connects_hears_and_is_heard_and_disconnects(client: Path, tmp_path: Path) -> None:
    microphone = write_microphone(tmp_path / "microphone.wav", 1.5, recording(SAID), 3.5)
    engines = {"VOCAL_STT": "pocketsphinx", "VOCAL_LLM": "eliza", "VOCAL_TTS": "espeak"}
    with (
        page_server(client) as origin,
        serving(tmp_path, VOCAL_ORIGINS=origin, **engines) as server,
        browsing(tmp_path, microphone, loop=True) as tab,
    ):
        tab.open(origin)
        ready = tab.page.evaluate("(server) => pipecat.connect(server)", server.url)
        assert ready["version"].split(".")[0] == "2"
        assert server.metric("vocal_sessions_active") == 1

        tab.wait_for(MOST_WORDS, words_of(SAID), timeout_ms=2 * WAIT_MS)
        tab.wait_for("() => pipecat.seen.spoken.length && pipecat.seen.peak > 0.05")
        tab.wait_for("() => pipecat.seen.messages.some((message) => message.t === 'turn')")
        seen = tab.page.evaluate("pipecat.seen")
        assert seen["states"][-1] == "ready"
        assert seen["tracks"] == 1

        before = len(seen["spoken"])
        tab.page.evaluate("pipecat.sendText('I typed this')")
        tab.wait_for("(n) => pipecat.seen.spoken.length > n", before)

        tab.page.evaluate("pipecat.disconnect()")
        tab.wait_for("() => pipecat.seen.states.at(-1) === 'disconnected'", timeout_ms=WAIT_MS)
        wait_until_nobody_is_left(tab, server)
        assert tab.page.evaluate("pipecat.seen.errors") == []


def test_another_origin_is_turned_away(client: Path, tmp_path: Path) -> None:
    fast = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "tone"}
    microphone = write_microphone(tmp_path / "microphone.wav", 5.0)
    with page_server(client) as origin, serving(tmp_path, **fast) as server, browsing(tmp_path, microphone) as tab:
        tab.open(origin)
        failed = tab.page.evaluate("(server) => pipecat.connect(server).then(() => '', (e) => String(e))", server.url)
        assert failed
        assert server.metric("vocal_sessions_active") == 0
