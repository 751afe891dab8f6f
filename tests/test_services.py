"""Service processes: their lines, their life and their end, each with real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from media_server import output as output_module
from media_server import supervisor as supervisor_module
from media_server.event_loop import loop_factory
from media_server.output import Lines, console, files, relayed
from media_server.parentage import bequest
from media_server.services import Program
from media_server.supervisor import Child, Ended, Supervisor
from pipeline.errors import EngineUnavailable
from pipeline.tts.openai_compatible import OpenAICompatibleTextToSpeech, create
from tests.processes import ROOT, WAIT_S, await_end, environment, lives, printing

# --- lines


@given(st.lists(st.binary(max_size=12)), st.integers(1, 5))
def test_lines_are_the_same_however_the_bytes_come(pieces: list[bytes], longest: int) -> None:
    whole, bit_by_bit = Lines(), Lines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_module, "MAX_LINE_CHARS", longest)
        text = b"".join(pieces)
        at_once = whole.feed(text) + whole.end()
        assert [line for piece in pieces for line in bit_by_bit.feed(piece)] + bit_by_bit.end() == at_once
    assert "".join(at_once) == text.decode(errors="backslashreplace").replace("\n", "")
    assert all(len(line) <= longest for line in at_once)


def test_a_line_is_told_when_its_end_comes_and_a_word_without_end_at_the_last() -> None:
    lines = Lines()
    assert lines.feed(b"one\ntw") == ["one"]
    assert lines.feed(b"o\n\nth\xc3") == ["two", ""]
    assert lines.feed(b"\xa9") == []
    assert lines.end() == ["th\u00e9"]
    assert lines.end() == []


def test_whatever_was_written_has_been_told_when_the_pipe_is_done_with() -> None:
    told: list[str] = []

    async def main() -> None:
        async with relayed(told.append) as pipe:
            pipe.write(b"first\n" * 1000 + b"last words")

    asyncio.run(main())
    assert told == ["first"] * 1000 + ["last words"]


def test_a_pipe_that_another_process_holds_open_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "LAST_WORDS_S", 0.1)
    told: list[str] = []

    async def main() -> int:
        async with relayed(told.append) as pipe:
            kept_open = os.dup(pipe.fileno())
            os.write(kept_open, b"last words")
        return kept_open

    os.close(asyncio.run(main()))
    assert told == ["last words"]


def test_a_file_of_lines_begins_anew_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "MAX_FILE_BYTES", 20)
    folder = tmp_path / "data" / "logs"
    with files(folder, ["tts", "stt"]) as tell:
        for word in ("one", "two", "three", "four", "five"):
            tell("tts", word)
    assert sorted(f.name for f in folder.iterdir()) == ["stt.log", "tts.log", "tts.log.1"]
    assert (folder / "tts.log.1").read_text() + (folder / "tts.log").read_text() == "one\ntwo\nthree\nfour\nfive\n"


@pytest.mark.parametrize(("form", "line"), [("text", "tts  | {}\n"), ("json", "{}\n")])
def test_a_line_on_the_console_carries_its_name_unless_it_is_json(
    form: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console(sys.stdout, "json" if form == "json" else "text", width=4)("tts", "{}")
    assert capsys.readouterr().out == line


# --- a process ends with its parent

STAGES = {
    "before its loop runs": "print('there', flush=True); time.sleep(600)",
    "while its loop runs": "asyncio.run(there())",
    "while its loop is blocked": "asyncio.run(blocked())",
    "whatever it does about Ctrl-C": "signal.signal(signal.SIGINT, print); print('there', flush=True)\n"
    "while True: time.sleep(600)",
}
CHILD = """
import asyncio, signal, time
from media_server import parentage
from media_server.event_loop import loop_factory, signals
parentage.ORPHAN_MAY_TAKE_S = 1
parent = parentage.inherit()
async def there():
    with signals() as seen:
        print("there", flush=True)
        assert await seen.get() == signal.SIGINT
        print("gracefully", flush=True)
async def blocked():
    with signals():
        print("there", flush=True)
        time.sleep(600)
"""
PARENT = """
import os, socket, subprocess, sys, time
from media_server.parentage import bequest
ours, theirs = socket.socketpair()
environment = {**os.environ, **bequest(theirs, [])}
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], pass_fds=[theirs.fileno()], env=environment)
theirs.close()
sibling = subprocess.Popen(["sleep", "600"])
print(child.pid, sibling.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_ends_with_its_parent(stage: str) -> None:
    with printing(["-c", PARENT, f"{CHILD}\n{STAGES[stage]}"], ROOT) as parent:
        child, sibling = (int(pid) for pid in parent.line(r"^(\d+) (\d+)$").groups())
        try:
            parent.line("there")
            assert lives(child)
            parent.process.kill()
            await_end(child)
            assert lives(sibling), "it did not end because of something else"
        finally:
            os.kill(sibling, signal.SIGKILL)
        if stage == "while its loop runs":
            parent.end()
            assert "gracefully" in parent.lines


def test_a_parent_that_has_gone_already_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        child = subprocess.run(
            [sys.executable, "-c", f"{CHILD}\ntime.sleep(600)"],
            cwd=ROOT,
            env={**environment(), **bequest(theirs, [])},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            check=False,
            timeout=WAIT_S,
        )
    assert child.stderr.splitlines()[-1] == b"KeyboardInterrupt"


# --- engines in processes of their own

HEAVY = """
import asyncio, os, sys
from pathlib import Path
import numpy as np
from pipeline.engines import Usable
from pipeline.errors import EngineUnavailable
from pipeline.tts.openai_compatible import OpenAICompatibleTextToSpeech, create

class Voice:
    rate_hz = 24_000
    async def synthesize(self, clause, voice, language, speed):
        yield np.full(240, os.getpid() % 30_000, np.int16)

def describe(settings):
    return Usable(-1, "a test's", heavy=True)

def create(settings):
    if settings.get("HEAVY_LACKS"):
        raise EngineUnavailable(settings["HEAVY_LACKS"])
    return Voice()
"""


SAMPLES = 30_000


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return settings under which a third party's heavy engine ``thirdparty.heavy`` is found."""
    package = tmp_path / "thirdparty"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "heavy.py").write_text(HEAVY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return {**environment(), "VOCAL_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(tmp_path)}


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run on the loop that the product runs on."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_within(main))


async def _within(main: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(WAIT_S):
        await main()


class Heard:
    """What service processes printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append(f"{name} | {line}")


def pids(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Return the processes that were started so far."""
    return [int(found[1]) for m in caplog.messages if (found := re.search(r"runs as process (\d+)", m))]


async def who_speaks(engine: OpenAICompatibleTextToSpeech) -> int:
    """Return the number of the process that answers, as far as it fits into a sample."""
    async for pcm in engine.synthesize("Hello.", None, "en", 1.0):
        return int(pcm[0])
    raise AssertionError("it does not speak")


async def until(state: Callable[[], object]) -> None:
    """Return once ``state`` is true."""
    while not state():  # noqa: ASYNC110 - what it waits for is another process
        await asyncio.sleep(0.01)


def test_a_heavy_engine_is_reached_by_its_address_and_restarted(
    heavy: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    heard = Heard()

    async def main() -> None:
        async with Supervisor(heard) as services:
            settings = await services.start("tts", "thirdparty.heavy", heavy)
            engine = create(settings)
            assert services.state() is None
            (first,) = pids(caplog)
            assert await who_speaks(engine) == first % SAMPLES
            os.kill(first, signal.SIGKILL)
            await until(services.state)
            assert services.state() == "tts thirdparty.heavy restarts, attempt 1 in a row"
            async with ClientSession() as session, session.get(f"{settings['VOCAL_TTS_URL']}/healthz") as answer:
                assert answer.status == 200, "who asks waits where the successor will take it"
            (_, second) = pids(caplog)
            assert await who_speaks(engine) == second % SAMPLES
            assert services.state() is None
            await engine.aclose()
            assert lives(second)
        assert not lives(second)

    run(main)
    assert "tts thirdparty.heavy | tts thirdparty.heavy: as configured" in heard.lines
    assert any("ended: killed by SIGKILL; starting it again in 0.5 s" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("setting", "words"),
    [("HEAVY_LACKS", "a graphics card"), ("VOCAL_TTS_PORT", "from 0 .* 65535")],
)
def test_a_heavy_engine_that_does_not_start_says_why(setting: str, words: str, heavy: dict[str, str]) -> None:
    heard = Heard()

    async def main() -> None:
        async with Supervisor(heard) as services:
            with pytest.raises(EngineUnavailable, match=f"^tts engine 'thirdparty.heavy' did not start.*{words}"):
                await services.start("tts", "thirdparty.heavy", {**heavy, setting: "a graphics card"})
            assert services.state() is None

    run(main)


@pytest.mark.parametrize(
    ("program", "words", "restarts"),
    [
        ("print('well')", "exit code 0", 0),
        ("1 / 0", "ZeroDivisionError: division by zero", 0),
        ("import os; os.abort()", "killed by SIGABRT", 3),
        ("import os; os.kill(os.getpid(), 40)", "killed by signal 40", 3),
    ],
)
def test_a_program_that_is_never_ready_is_given_up(
    program: str, words: str, restarts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "BACKOFF_S", (0.01,))
    monkeypatch.setattr(Program, "command", lambda self: [sys.executable, "-c", program])

    async def main() -> None:
        child = Child(Program("broken", [], environment(), []), Heard())
        with pytest.raises(Ended, match=f"^{words}$"):
            await child.started()
        await child.stop()
        assert child.restarts == restarts

    run(main)


def test_a_program_that_cannot_be_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "command", lambda self: ["/nowhere/python"])

    async def main() -> None:
        with pytest.raises(Ended, match=r"^it cannot be started: .*No such file"):
            await Child(Program("broken", [], environment(), []), Heard()).started()

    run(main)


def test_giving_up_on_a_start_ends_it(heavy: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def main() -> None:
        async with Supervisor(Heard()) as services:
            starting = asyncio.create_task(services.start("tts", "thirdparty.heavy", heavy))
            await until(lambda: pids(caplog))
            starting.cancel()
            await asyncio.wait([starting])
            assert starting.cancelled()
            assert not lives(*pids(caplog))

    run(main)


def test_a_heavy_engine_of_the_server_ends_with_it(heavy: dict[str, str], tmp_path: Path) -> None:
    server = ["-m", "media_server", "serve", "--tts", "thirdparty.heavy"]
    with printing(server, tmp_path, {**heavy, "PYTHONPATH": f"{ROOT}:{tmp_path}"}) as serving:
        pid = int(serving.line(r"tts thirdparty.heavy runs as process (\d+)$")[1])
        serving.line(r"^tts thirdparty.heavy \| tts thirdparty.heavy: as configured$")
        serving.line("^Vocal Node is ready: ")
        assert lives(pid)
        serving.process.kill()
        await_end(pid)


def test_restarts_become_rarer_while_nothing_helps(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(supervisor_module, "BACKOFF_S", (0.01, 0.02, 0.03))
    program = Program("flaky", [], environment(), [])
    monkeypatch.setattr(Program, "command", lambda self: [sys.executable, "-c", FLAKY])

    async def main() -> None:
        child = Child(program, Heard())
        await child.started()
        await until(lambda: child.restarts == 4)
        await child.stop()

    run(main)
    warned = [message for message in caplog.messages if "starting it again" in message]
    assert warned == [f"flaky ended: out of luck; starting it again in {s} s" for s in (0.01, 0.02, 0.03, 0.03)]


def test_who_answered_long_enough_begins_a_new_row(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "WELL_S", 0.0)
    monkeypatch.setattr(supervisor_module, "BACKOFF_S", (0.01, 600.0))
    monkeypatch.setattr(Program, "command", lambda self: [sys.executable, "-c", FLAKY])

    async def main() -> None:
        child = Child(Program("flaky", [], environment(), []), Heard())
        await until(lambda: len(caplog.messages) == 3)
        assert child.restarts == 1
        await child.stop()

    run(main)


def test_who_does_not_end_is_killed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "command", lambda self: [sys.executable, "-c", STUBBORN])

    async def main() -> None:
        child = Child(Program("stubborn", [], environment(), []), Heard())
        await child.started()
        await child.stop(within_s=0.1)

    run(main)
    assert caplog.messages == ["stubborn is killed: it did not end within 0.1 s"]


FLAKY = """
import os, sys
from media_server.parentage import inherit
inherit().tell_ready()
sys.exit("vocal-node: out of luck")
"""
STUBBORN = """
import signal, time
from media_server.parentage import inherit
signal.signal(signal.SIGTERM, print)
inherit().tell_ready()
while True:
    time.sleep(600)
"""
