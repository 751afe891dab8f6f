"""The command line: what it says, to whom, and with which exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from media_server.cli import main

ROOT = Path(__file__).parent.parent
STAND_INS = ("--vad", "energy", "--stt", "scripted", "--llm", "echo", "--tts", "tone", "--turn", "silence")


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without the developer's variables."""
    for name in list(os.environ):
        if name.startswith("VOCAL_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VOCAL_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Listen on a port as another program would."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def only_line(text: str) -> str:
    """Return the one line that a fault is told in."""
    (line,) = text.splitlines()
    return line


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["call", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom media_server.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'aiortc', 'aiohttp', 'av', 'numpy', 'onnxruntime', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_no_command_is_asked_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--port", "eighty"], ["VOCAL_PORT='eighty'", "65535"]),
        (["serve", "--host", "0.0.0.0"], ["VOCAL_API_KEYS", "--insecure"]),
        (["serve", "--set", "VOCAL_DRAIN_S=soon"], ["VOCAL_DRAIN_S='soon'", "seconds"]),
        (["serve", "--set", "nonsense"], ["NAME=VALUE"]),
        (["call", "speech.wav", "--set", "VOCAL_LOG_LEVEL=loud"], ["VOCAL_LOG_LEVEL='loud'", "WARNING"]),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    line = only_line(capsys.readouterr().err)
    assert all(word in line for word in words), line


def test_a_variable_from_the_file_counts(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text("VOCAL_PORT=eighty\n")
    assert main(["serve"]) == 2
    assert "VOCAL_PORT='eighty'" in capsys.readouterr().err


def test_a_taken_port_is_one_line_that_names_it(taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", str(taken_port), *STAND_INS]) == 1
    line = only_line(capsys.readouterr().err)
    assert f"port {taken_port} is taken" in line
    assert "VOCAL_PORT=" in line


def test_an_address_of_another_machine_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "192.0.2.1", "--insecure", "--port", "0"]) == 1
    assert "192.0.2.1" in only_line(capsys.readouterr().err)


def test_an_engine_nobody_knows_is_one_line_that_lists_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *STAND_INS, "--tts", "megaphone"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "megaphone" in line
    assert "tone" in line


def test_doctor_tells_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--set", "VOCAL_TTS=tone"]) == 0
    out = capsys.readouterr().out
    assert all(f"VOCAL_{kind}=" in out for kind in ("VAD", "STT", "LLM", "TTS", "TURN"))
    assert "* tone" in out
    assert "aiortc 1." in out


def test_a_call_without_a_readable_file_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["call", "nowhere.wav"]) == 1
    assert "nowhere.wav" in only_line(capsys.readouterr().err)
    text = tmp_path / "letter.txt"
    text.write_text("Dear Sir or Madam")
    assert main(["call", str(text)]) == 1
    assert "letter.txt" in only_line(capsys.readouterr().err)


def test_a_call_to_nobody_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    speech = ROOT / "tests" / "fixtures" / "audio" / "go-forward.wav"
    assert main(["call", str(speech), "--url", "http://127.0.0.1:9"]) == 1
    line = only_line(capsys.readouterr().err)
    assert "http://127.0.0.1:9" in line
    assert "make run" in line
    assert main(["call", str(speech), "--url", "nonsense"]) == 1
    assert "nonsense" in only_line(capsys.readouterr().err)
