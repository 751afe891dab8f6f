"""Every example in docs/protocol.md and docs/voices.md is run as it stands, in order, against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from media_server.app import create_app
from media_server.config import load
from tests.browser import Server, recording, serving, write_microphone
from tests.music import music

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "protocol.md"
PAGES = (PAGE, ROOT / "docs" / "voices.md")
SDP = ROOT / "tests" / "fixtures" / "sdp"
PAGES_THERE = ("/", "/status")
"""For people, not for programs."""
PROMPT = "    $ "
STAND_INS = {"VOCAL_VAD": "energy", "VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "tone"}
FETCH = "curl() { command curl -sS --max-time 30 -w '\\n%{stderr}status %{http_code}\\n' \"$@\"; }\n"
"""What each command's ``curl`` is: quiet, limited in time, and telling the status on the side."""

ALIASES = ("/sessions/{session_id}/api/offer", "/sessions/{session_id}/api/offer/{pc_id}", "/whep/{id}")
"""Routes that do what another does, which has the example."""


@dataclass
class Example:
    """A command of the page and what the page says it prints."""

    line: int
    command: str
    output: str

    @property
    def fails(self) -> bool:
        """Whether the page shows it fail."""
        return '{"error": {' in self.output


@dataclass
class Seen:
    """What earlier answers said, under the names the page uses for it."""

    names: dict[str, str] = field(default_factory=dict)

    def put_into(self, command: str) -> str:
        """Return the command with real ids for the page's."""
        for name, value in self.names.items():
            command = command.replace(name, value)
        return command

    def learn(self, example: Example, answer: str) -> None:
        """Note the ids of an answer."""
        found = re.search(r'"pc_id": "([^"]+)"', answer) or re.search(r"Location: /wh[ie]p/(\S+)", answer)
        if found and "PC_ID" in example.output:
            self.names["PC_ID"] = found[1]
        if found := re.search(r'"id": "(anna-[0-9a-f]{8})"', answer):
            self.names["VOICE_ID"] = found[1]
        shown, got = (re.search(r'ETag: ("[^"]+")', text) for text in (example.output, answer))
        if shown and got:
            self.names[shown[1]] = got[1]


def examples(page: Path = PAGE) -> list[Example]:
    """Return a page's shell examples, in order."""
    lines = page.read_text().splitlines()
    return [read_example(lines, i) for i, line in enumerate(lines) if line.startswith(PROMPT)]


def read_example(lines: list[str], begin: int) -> Example:
    """Return the example whose prompt is at index ``begin``: the command until it is complete, then its output."""
    end = begin + 1
    while not complete(command := "\n".join(line[4:] for line in lines[begin:end]).removeprefix("$ ")):
        end += 1
    rest = (line for line in lines[end:])
    output: list[str] = []
    for line in rest:
        if not line.startswith("    ") or line.startswith(PROMPT):
            break
        output.append(line[4:])
    return Example(begin + 1, command, "\n".join(output))


def complete(command: str) -> bool:
    """Tell whether a shell would run this, and not ask for more."""
    if command.rstrip().endswith(("\\", "|")):
        return False
    return subprocess.run(["bash", "-n", "-c", command], check=False, capture_output=True).returncode == 0


def python_examples() -> list[str]:
    """Return the page's Python examples."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def needs(*programs: str) -> None:
    """Skip where one of them is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine: apt-get install {program}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the examples name."""
    path = tmp_path_factory.mktemp("examples")
    offer = (SDP / "whip-client.sdp").read_bytes()
    (path / "offer.sdp").write_bytes(offer)
    (path / "listen.sdp").write_bytes(offer.replace(b"a=sendonly", b"a=recvonly"))
    speech = recording("austen-0880")
    write_microphone(path / "speech.wav", speech)
    (path / "speech.pcm").write_bytes(speech.tobytes())
    write_microphone(path / "voice.wav", speech, 0.3, recording("go-forward"))
    write_microphone(path / "two.wav", speech, 0.3, recording("lj001-0004"))
    write_microphone(path / "music.wav", music("piano"))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with the stand-in engines: what is shown are shapes, not wits."""
    with serving(tmp_path_factory.mktemp("data"), **STAND_INS, VOCAL_ENDPOINT_MS="200") as running:
        yield running


def environment(server: Server) -> dict[str, str]:
    """Return the variables that the page tells its reader to set; one process serves all four ports' routes."""
    return {**os.environ, **dict.fromkeys(("NODE", "STT", "CHAT", "TTS"), server.url)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_does_what_the_page_says(server: Server, folder: Path, page: Path) -> None:
    needs("curl", "jq")
    seen = Seen()
    for example in examples(page):
        done = subprocess.run(
            ["bash", "-c", FETCH + seen.put_into(example.command)],
            check=False,
            capture_output=True,
            cwd=folder,
            env=environment(server),
            timeout=60,
        )
        answer, aside = done.stdout.decode(errors="replace"), done.stderr.decode()
        where = f"line {example.line}: {example.command}\n{aside}\n{answer[:1000]}"
        assert done.returncode == 0, where
        statuses = [int(status) for status in re.findall(r"^status (\d+)$", aside, re.MULTILINE)]
        assert statuses, where
        assert all((status >= 400) == example.fails for status in statuses), where
        assert shape_of(last_json(example.output)) == shape_of(last_json(answer)), where
        seen.learn(example, answer)


def last_json(text: str) -> Any:
    """Return the JSON a command printed at its end, None where there is none."""
    for line in reversed(text.strip().splitlines()):
        if line.startswith(("{", "[")):
            return json.loads(line)
    return None


def shape_of(value: Any) -> Any:
    """Return the field names of ``value``, nested; what is in a list shows in its first item."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return None


@pytest.mark.parametrize("number", range(len(python_examples())))
def test_every_program_runs(server: Server, folder: Path, number: int) -> None:
    command = [sys.executable, "-W", "error", "-c", python_examples()[number]]
    env = {**environment(server), "PYTHONPATH": ""}
    done = subprocess.run(command, check=False, capture_output=True, cwd=folder, env=env, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example shows something"


def test_every_route_has_an_example() -> None:
    shown = "\n".join([*(example.command for example in examples()), *python_examples()])
    resources = [r.canonical for r in create_app(load(STAND_INS)).router.resources()]
    wanted = [r for r in resources if r not in PAGES_THERE and not r.startswith("/static") and r not in ALIASES]
    assert wanted
    assert [r for r in wanted if not re.search(as_pattern(r), shown)] == []


def as_pattern(route: str) -> str:
    """Return an expression that finds a use of this route in a command or program."""
    parts = (re.escape(part) for part in re.split(r"\{[^}]*\}", route))
    return r"(\$\w+|\}|\w)" + r"[^/\s\"'?]+".join(parts) + r"(?![\w/-])"
