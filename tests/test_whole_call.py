"""A whole call with the engines that run models, through their real libraries: Whisper, transformers and XTTS.

The models are tiny and made here; everything else is as a user has it: ``vocal-node serve``, which starts the two heavy
engines in processes of their own, and ``vocal-node call`` over WebRTC.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_whisper
from tests.browser import ROOT, SPEECH, Server, serving

pytest.importorskip("torch", reason="pip install 'vocal-node[transformers,xtts]'")
pytest.importorskip("transformers", reason="pip install 'vocal-node[transformers]'")

HEARD = "Shall we have tea?"
SAID = "I would love a cup of tea, thanks."
YOU = rf"{re.escape(HEARD)}( {re.escape(HEARD)})*"
"""What is told of a recording: once, or for each part of it where a busy machine hears a pause in its middle."""
ANSWERED = rf"you>   {YOU}\nagent> {re.escape(SAID)}\nturn 1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with all three."""
    from tests import tiny_llm, xtts_checkpoint

    folder = tmp_path_factory.mktemp("models")
    models = {
        "VOCAL_WHISPER_MODEL": tiny_whisper.build(folder / "whisper", tiny_whisper.Script(f" {HEARD}")),
        "VOCAL_TRANSFORMERS_MODEL": tiny_llm.build(folder / "llm", SAID),
        "XTTS_MODEL_PATH": xtts_checkpoint.write_checkpoint(folder / "xtts"),
    }
    engines = {"VOCAL_STT": "faster_whisper", "VOCAL_LLM": "transformers", "VOCAL_TTS": "xtts"}
    settings = {**engines, **{name: str(path) for name, path in models.items()}}
    with serving(tmp_path_factory.mktemp("server"), **settings) as running:
        yield running


def calling(server: Server, *more: str) -> subprocess.Popen[str]:
    """Begin a call that speaks a recording."""
    command = [sys.executable, "-m", "media_server", "call", str(SPEECH / "go-forward.wav"), "--url", server.url, *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(call: subprocess.Popen[str]) -> str:
    """Return what a call printed, at its end."""
    said, _ = call.communicate(timeout=90)
    assert call.returncode == 0, said
    return said


def loaded(pid: int) -> set[str]:
    """Return the libraries that a process has in memory."""
    return {Path(line.split()[-1]).name for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if ".so" in line}


def test_it_hears_thinks_and_speaks(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "reply.wav"
    said = outcome(calling(server, "--out", str(out)))
    assert re.search(ANSWERED, said), said
    with wave.open(str(out)) as sound:
        pcm = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
        seconds = np.count_nonzero(np.abs(pcm.astype(int)) > 200) / sound.getframerate()
    assert seconds > 0.5, "random weights speak, if only for as long as they may"


def test_it_stops_in_the_middle_when_the_caller_speaks_and_answers_again(server: Server) -> None:
    said = outcome(calling(server, "--interrupt-after", "0.2"))
    assert len(re.findall(rf"^you>   {YOU}$", said, re.MULTILINE)) == 2
    assert "(interrupted)" in said
    assert f"agent> {SAID}\nturn 2" in said


def test_two_callers_are_answered_at_once(server: Server) -> None:
    for said in [outcome(call) for call in [calling(server), calling(server)]]:
        assert re.search(ANSWERED, said), said


def test_a_caller_who_vanishes_in_the_middle_of_an_answer_leaves_the_engines_idle(server: Server) -> None:
    call = calling(server, "--repeat", "3")
    assert call.stdout is not None
    assert re.fullmatch(rf"you>   {YOU}\n", call.stdout.readline())
    call.kill()
    call.communicate()
    for _ in range(100):
        if server.metric("vocal_sessions_active") == 0:
            break
        time.sleep(0.1)
    assert f"agent> {SAID}\nturn 1" in outcome(calling(server))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_media_process_never_loads_torch(server: Server) -> None:
    assert not [name for name in loaded(server.process.pid) if "torch" in name]
    services = re.findall(r"(chat transformers|tts xtts) runs as process (\d+)", server.log.read_text())
    assert {name for name, _ in services} == {"chat transformers", "tts xtts"}
    for _, pid in services:
        assert any("libtorch" in name for name in loaded(int(pid)))
