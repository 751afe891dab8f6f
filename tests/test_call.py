"""``vocal-node call``: a real caller over real UDP against a real server process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from media_server import caller
from media_server.caller import Mouth, Plan, Talk
from media_server.caller_audio import (
    AUDIBLE,
    KEPT_SILENCE_S,
    PAUSE_S,
    Ear,
    Unreadable,
    read_speech,
    speech_span,
    write_wav,
)
from media_server.caller_link import CallFailed, Link, Target
from media_server.cli import main
from pipeline.audio import Pcm, silence
from pipeline.tasks import cancel_and_wait
from tests.browser import Server, serving
from tests.canary import KEY

ROOT = Path(__file__).parent.parent
SPEECH = ROOT / "tests" / "fixtures" / "audio" / "go-forward.wav"
STAND_INS = {
    "VOCAL_VAD": "energy",
    "VOCAL_STT": "scripted",
    "VOCAL_SCRIPTED_TEXT": "Go forward ten metres.",
    "VOCAL_LLM": "echo",
    "VOCAL_ECHO_TEXT": "You said {text}.",
    "VOCAL_TTS": "tone",
    "VOCAL_TONE_CHARACTER_MS": "30",
    "VOCAL_TURN": "silence",
}


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without the developer's variables."""
    for name in list(os.environ):
        if name.startswith("VOCAL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VOCAL_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Share one server that answers with a tone as long as what it says."""
    with serving(tmp_path_factory.mktemp("server"), **STAND_INS) as running:
        yield running


def test_it_speaks_is_answered_and_tells_how_long_it_took(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reply.wav"
    assert main(["call", str(SPEECH), "--url", server.url, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "you>   Go forward ten metres." in said.out
    assert "agent> You said Go forward ten metres." in said.out
    assert re.search(r"turn 1: .*end of turn \d+, words -?\d+, .*sound \d+; heard here: \d+ ms", said.out), said.out
    with wave.open(str(out)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth()) == (1, 2)
        rate_hz = sound.getframerate()
        pcm = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    tone_samples = 0.03 * len("You said Go forward ten metres.") * rate_hz
    loud = np.flatnonzero(np.abs(pcm.astype(int)) > AUDIBLE)
    assert tone_samples * 0.9 < len(loud) * 1.02, "all of the answer"
    assert loud[0] < 0.1 * rate_hz and loud[-1] == len(pcm) - 1, "and no silence before or after it"
    assert np.diff(loud).max() <= (KEPT_SILENCE_S + PAUSE_S) * rate_hz, "nor a long one where packets came late"


def test_it_repeats_and_interrupts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = " ".join(f"This is sentence number {n}." for n in range(6))
    with serving(tmp_path, **{**STAND_INS, "VOCAL_ECHO_TEXT": long}) as server:
        assert main(["call", str(SPEECH), "--url", server.url, "--interrupt-after", "1"]) == 0
    out = capsys.readouterr().out
    cut_ms = re.search(r"barge-in: the agent was silent (\d+) ms after the caller began", out)
    assert cut_ms, out
    assert 1000 + int(cut_ms[1]) < 30 * len(long), "it did not say all it had to say"
    assert "(interrupted)" in out
    assert len(re.findall(r"^turn \d", out, re.MULTILINE)) == 2
    assert long in out


def one_failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Make a call that does not work out; return the one line that says why."""
    assert main(["call", str(SPEECH), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_key_is_asked_for_a_wrong_one_refused_and_the_right_one_let_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path, **STAND_INS, VOCAL_API_KEYS=KEY) as server:
        assert "wants a key: give it with --key" in one_failure(["--url", server.url], capsys)
        assert "does not know this key" in one_failure(["--url", server.url, "--key", "wrong"], capsys)
        unknown = ["--url", server.url, "--set", f"VOCAL_API_KEYS={KEY},other", "--agent", "nobody"]
        assert "no agent 'nobody'" in one_failure(unknown, capsys)


def test_a_recording_that_cannot_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def call(plan: Plan, speech: Pcm) -> Ear:
        return Ear(24_000)

    monkeypatch.setattr(caller, "_call", call)
    assert "cannot write nowhere/reply.wav" in one_failure(["--out", "nowhere/reply.wav"], capsys)


def calling(server: Server) -> subprocess.Popen[str]:
    """Start a call in a process of its own."""
    command = [sys.executable, "-m", "media_server", "call", str(SPEECH), "--url", server.url, "--repeat", "50"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_server_says_when_to_call_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path, **STAND_INS, VOCAL_MAX_SESSIONS="1") as server, calling(server) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("you>")
        line = one_failure(["--url", server.url], capsys)
        assert "is full: try again in" in line
        first.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("answer", [{}, {"pc_id": "x"}, {"pc_id": "x", "sdp": "v=0", "type": "rubbish"}])
def test_another_kind_of_server_is_told_from_ours(answer: dict[str, str]) -> None:
    async def main() -> None:
        async def anything(_: web.Request) -> web.Response:
            return web.json_response(answer)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", anything)
        async with TestServer(app) as server:
            link = Link(Target(f"http://127.0.0.1:{server.port}", None, None), Mouth().playout, Ear(24_000))
            with pytest.raises(CallFailed, match="does not answer like Vocal Node"):
                await link.__aenter__()

    asyncio.run(main())


def test_a_server_that_goes_away_ends_the_call_with_one_line(tmp_path: Path) -> None:
    with serving(tmp_path, **STAND_INS) as server, calling(server) as call:
        assert call.stdout is not None
        assert call.stdout.readline().startswith("you>")
        server.process.send_signal(signal.SIGINT)
        _, errors = call.communicate(timeout=40)
        assert call.returncode == 1
        (line,) = errors.splitlines()
        assert "the server ended the call" in line


class ScriptedLink:
    """A link whose server says what was written down; None is a moment in which it says nothing."""

    def __init__(self, *messages: tuple[str, dict[str, Any]] | None) -> None:
        self._messages = [message and {"type": message[0], "data": message[1]} for message in messages]

    async def next_message(self, timeout_s: float) -> Mapping[str, Any] | None:
        """Return the next message at once, None when there are no more."""
        return self._messages.pop(0) if self._messages else None


def test_a_greeting_is_heard_out_and_its_words_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    turn = {"t": "turn", "turn": 1, "user": "Hi.", "agent": "Goodbye.", "interrupted": False, "endpoint_ms": 400.0}
    link = ScriptedLink(
        ("bot-started-speaking", {}),
        ("bot-tts-text", {"text": "Hello there."}),
        ("bot-stopped-speaking", {}),
        None,
        ("server-message", turn),
    )

    async def main() -> None:
        mouth, ear = Mouth(), Ear(24_000)
        talk = Talk(Plan(Path("-"), "http://localhost"), link, mouth, ear)
        pulling = asyncio.create_task(pull(mouth))
        await talk.run(tone(0.1))
        await cancel_and_wait(pulling)

    async def pull(mouth: Mouth) -> None:
        while True:
            await mouth.playout.next_frame()

    asyncio.run(main())
    assert capsys.readouterr().out.splitlines() == [
        "agent> Hello there.",
        "you>   Hi.",
        "agent> Goodbye.",
        "turn 1: ms after your last sample: end of turn 400; heard here: -",
    ]


# --- mouth and ear


def tone(seconds: float, amplitude: int = 8000, rate_hz: int = 24_000) -> Pcm:
    """Return a 440 Hz tone."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (np.sin(2 * np.pi * 440 * t) * amplitude).astype(np.int16)


def test_any_container_becomes_24_khz_without_its_silent_ends(tmp_path: Path) -> None:
    file = tmp_path / "speech.wav"
    write_wav(file, np.concatenate([silence(16_000), tone(1.0, rate_hz=16_000), silence(8_000)]), 16_000)
    pcm = read_speech(file)
    assert abs(len(pcm) - 24_000) < 100


def test_a_file_of_silence_is_no_speech(tmp_path: Path) -> None:
    file = tmp_path / "silence.wav"
    write_wav(file, silence(16_000), 16_000)
    with pytest.raises(Unreadable, match="no sound"):
        read_speech(file)


def test_speech_lies_between_the_noise() -> None:
    noise = tone(0.5, amplitude=250)
    start, end = speech_span(np.concatenate([noise, tone(1.0), noise]))
    assert (start, end) == (12_000, 36_000)


def test_sound_after_a_short_pause_is_the_same_stretch_and_after_a_long_one_a_new_one() -> None:
    ear = Ear(1_000)
    loud, quiet = np.full(100, 5_000, np.int16), silence(100)
    now_s = 10.0
    for pcm in (quiet, loud, quiet, loud, quiet, quiet, quiet, quiet, loud):
        ear.push(pcm, now_s)
        now_s += 0.1
    edges = [moment for stretch in ear.heard for moment in (stretch.first_s, stretch.last_s)]
    assert edges == pytest.approx([10.1, 10.399, 10.8, 10.899])
    assert ear.onset_after(10.2) == pytest.approx(10.8)
    assert ear.onset_after(11.0) is None
    assert ear.silent_after(10.2) == pytest.approx(10.399)
    assert ear.silent_after(10.5) is None


def test_the_recording_keeps_no_long_pause() -> None:
    ear = Ear(1_000)
    ear.push(silence(2_000), 0.0)
    ear.push(np.full(100, 5_000, np.int16), 2.0)
    for n in range(20):
        ear.push(silence(100), 2.1 + n / 10)
    ear.push(np.full(100, 5_000, np.int16), 4.1)
    ear.push(silence(100), 4.2)
    assert len(ear.recording()) == 100 + 500 + 100
    assert not len(Ear(1_000).recording())
