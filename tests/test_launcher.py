"""``python launcher.py`` with real processes: who is started, what is seen of them, and that none is ever left."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from media_server.event_loop import SAME_SIGNAL_S
from media_server.launcher import main as launcher
from tests.canary import KEY
from tests.processes import ROOT, STAND_INS, WAIT_S, Printing, await_end, environment, lives, printing

LAUNCHER = str(ROOT / "launcher.py")
NAMES = ("server", "stt", "chat", "tts")


def started(launched: Printing, *names: str) -> dict[str, int]:
    """Return the processes of these services, once all of them are ready."""
    launched.line(r"^(launcher \| )?Vocal Node is ready: ")
    return {name: newest(launched, name) for name in names}


def newest(launched: Printing, name: str) -> int:
    """Return the process that was started last for a service, by the lines so far."""
    found = [
        m for line in launched.lines if (m := re.search(rf"^(?:launcher \| )?{name} runs as process (\d+)$", line))
    ]
    return int(found[-1][1])


def url_of(launched: Printing, name: str) -> str:
    """Return where a service that is ready answers, by the lines so far."""
    what = "Vocal Node" if name == "server" else name
    return next(
        m[1] for line in launched.lines if (m := re.search(rf"^(?:launcher \| )?{what} is ready: (\S+)$", line))
    )


def answer(url: str, **body: str) -> bytes:
    """Ask for something with our key, and with JSON where there is a body."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    with closing(urllib.request.urlopen(request, timeout=WAIT_S)) as response:
        return bytes(response.read())


def test_all_services_in_one_log_each_restarted_when_it_dies(tmp_path: Path) -> None:
    def speak(name: str) -> bytes:
        return answer(f"{urls[name]}/v1/audio/speech", input="Hello.", model="default", voice="default")

    keys = ["--set", f"VOCAL_API_KEYS={KEY},another"]
    with printing([LAUNCHER, "--combined-logs", *keys], tmp_path) as launched:
        pids = started(launched, *NAMES)
        urls = {name: url_of(launched, name) for name in NAMES}
        assert all(answer(f"{url}/healthz") for url in urls.values())
        sound = speak("server")
        assert len(sound) > 10_000

        os.kill(pids["tts"], signal.SIGKILL)
        launched.line(r"^launcher \| tts ended: killed by SIGKILL; starting it again in 0.5 s$")
        assert speak("tts") == sound, "who asks waits until there is somebody to answer"
        assert speak("server") == sound
        launched.line(r"^launcher \| tts runs as process")
        pids["tts"] = newest(launched, "tts")
        assert all(lives(pid) for pid in pids.values()), "the others are untouched"

        launched.process.send_signal(signal.SIGINT)
        assert launched.end() == 0
        assert not any(lives(pid) for pid in pids.values())
    assert all(re.match(r"(server  |stt     |chat    |tts     |launcher) \| ", line) for line in launched.lines)
    assert "server   | tts openai_compatible: as configured" in launched.lines
    assert "tts      | tts tone: as configured" in launched.lines
    assert not (tmp_path / "data" / "logs").exists()


def test_a_subset_logs_to_files_and_nothing_is_left_when_the_launcher_is_killed(tmp_path: Path) -> None:
    with printing([LAUNCHER, "--services", "tts", "server", "--set", "VOCAL_DATA_DIR=there"], tmp_path) as launched:
        pids = started(launched, "tts", "server")
        launched.process.kill()
        await_end(*pids.values())
    assert sum("runs as process" in line for line in launched.lines) == 2
    logs = {name: (tmp_path / "there" / "logs" / f"{name}.log").read_text() for name in ("tts", "server")}
    assert "tts tone: as configured\n" in logs["tts"]
    assert "Vocal Node is ready: http://localhost:" in logs["server"]
    assert "tts openai_compatible: as configured\n" in logs["server"]
    assert "stt scripted: as configured\n" in logs["server"], "what is not launched runs in the server"


def test_nothing_is_left_when_the_launcher_is_killed_while_they_start(tmp_path: Path) -> None:
    with printing([LAUNCHER, "--services", "chat", "tts"], tmp_path) as launched:
        pids = [int(launched.line(r"runs as process (\d+)")[1]) for _ in range(2)]
        launched.process.kill()
        await_end(*pids)


def test_the_server_ends_before_the_services_that_it_needs(tmp_path: Path) -> None:
    with printing([LAUNCHER, "--services", "server", "stt"], tmp_path) as launched:
        pids = started(launched, "server", "stt")
        os.kill(pids["server"], signal.SIGSTOP)
        launched.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            launched.process.wait(timeout=1.0)
        assert lives(pids["stt"])
        os.kill(pids["server"], signal.SIGCONT)
        assert launched.end() == 0
        assert not any(lives(pid) for pid in pids.values())


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    with printing([LAUNCHER, "--services", "chat"], tmp_path) as launched:
        launched.line("^chat is ready: ")
        pid = newest(launched, "chat")
        os.kill(pid, signal.SIGSTOP)
        launched.process.send_signal(signal.SIGTERM)
        launched.line("^ending: SIGTERM")
        with pytest.raises(subprocess.TimeoutExpired):
            launched.process.wait(timeout=SAME_SIGNAL_S + 0.2)
        launched.process.send_signal(signal.SIGTERM)
        assert launched.end() == 128 + signal.SIGTERM
        os.kill(pid, signal.SIGCONT)
        await_end(pid)


# --- what is told at once


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, with stand-ins and without the developer's variables; logging is put back."""
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for name, value in STAND_INS.items():
        monkeypatch.setenv(name, value)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("alone")
def test_a_taken_port_is_one_line_that_names_it_and_nothing_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert launcher(["--set", f"VOCAL_TTS_PORT={port}"]) == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert f"tts: port {port} is taken" in line
    assert f"VOCAL_TTS_PORT={port + 10}" in line
    assert "runs as" not in out
    assert not Path("data").exists()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "VOCAL_STT_PORT=eighty"], 2, "VOCAL_STT_PORT='eighty'"),
        (["--set", "VOCAL_STT_PORT=9123", "--set", "VOCAL_TTS_PORT=9123"], 1, "tts: port 9123 is for stt"),
        (["--set", "VOCAL_HOST=0.0.0.0"], 2, "VOCAL_API_KEYS"),
        (["--set", "VOCAL_DATA_DIR=/dev/null"], 1, "cannot write logs to /dev/null/logs"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launcher(arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("names", "engine", "code", "words"),
    [
        (["tts"], "megaphone", 1, "no tts engine named 'megaphone'"),
        (["stt", "tts"], "openai_compatible", 2, "VOCAL_TTS=openai_compatible is for the server"),
    ],
)
def test_a_service_that_cannot_start_ends_all_of_them(
    names: list[str], engine: str, code: int, words: str, tmp_path: Path
) -> None:
    arguments = [LAUNCHER, "--services", *names, "--set", f"VOCAL_TTS={engine}"]
    with printing(arguments, tmp_path) as launched:
        assert launched.end() == code
    assert "launcher: tts did not start: " in launched.lines[-1]
    assert words in launched.lines[-1]
    assert not any(lives(newest(launched, name)) for name in names)


def test_without_its_packages_it_says_how_to_get_them(tmp_path: Path) -> None:
    bare = [sys.executable, "-E", "-S", LAUNCHER]
    ended = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "make install" in line
    assert "'media_server'" not in line, "that one is here"
