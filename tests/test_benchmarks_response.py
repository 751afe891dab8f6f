"""What is printed of response latency is what happened: floor, CPU, tables, servers, and a short run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, response_latency
from benchmarks.contenders import Contender, contenders
from benchmarks.cpu import share, used_s
from benchmarks.floor import floor
from benchmarks.measuring_caller import FASTRTC_PATH, PATH, Turn
from benchmarks.peers import FASTRTC, PIPECAT, Framework
from benchmarks.response_latency import Taken, added_s, cases, install, measure, report, side_by_side
from benchmarks.servers import Server, started
from benchmarks.stand_ins import Rules

RULES = Rules(200, 64)
ROOT = Path(__file__).parent.parent


# --- floor


def test_the_floor_is_a_packet_and_the_codec() -> None:
    least = floor(RULES)
    assert least.response_ms.min() > 0 and least.response_ms.max() < 28
    assert np.ptp(least.response_ms) == pytest.approx(20, abs=1)  # the rule is met anywhere in a packet
    assert 4 < least.codec_ms < 8 and 9 < least.packet_ms < 11
    assert least.response_ms.mean() == pytest.approx(least.codec_ms + least.packet_ms, abs=1)
    assert np.median(least.barge_in_ms) == pytest.approx(RULES.speech_ms + 6.5, abs=3)


@pytest.mark.parametrize(("silence_ms", "beyond_ms"), [(200, 50), (300, 0)])
def test_models_hide_behind_the_silence_as_far_as_it_goes(silence_ms: float, beyond_ms: float) -> None:
    least = floor(Rules(silence_ms, 64, 40, 120, 90))
    assert least.models_ms == beyond_ms
    assert np.median(least.response_ms) == pytest.approx(np.median(floor(RULES).response_ms) + beyond_ms)


# --- CPU

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")


BURN = """
import subprocess, sys, time
while time.process_time() < 0.2: pass
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, sys.argv[1]], stdin=subprocess.PIPE)
    child.wait()
print("done", flush=True)
sys.stdin.read()
"""


@needs_proc
def test_cpu_is_that_of_a_process_and_its_children(tmp_path: Path) -> None:
    script = tmp_path / "burn.py"
    script.write_text(BURN)
    with subprocess.Popen([sys.executable, str(script), str(script)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"done\n"  # the child's, which waits
        used, again = used_s(parent.pid), used_s(parent.pid)
        assert used is not None and again is not None
        parent.kill()
    assert used > 0.35
    assert again - used < 0.1  # both wait


def test_cpu_of_no_process_is_unknown() -> None:
    assert used_s(2**30) is None
    assert share(None, None, 1.0) is None


# --- tables


def taken(turns: Sequence[Turn], *failures: str) -> Taken:
    """Return what a contender did."""
    return Taken(Contender("some server", []), list(turns), [10.0, 12.0, 50.0], list(failures))


def test_a_row_tells_what_was_not_answered() -> None:
    one = taken([Turn(0.22, None), Turn(0.24, 0.09), Turn(None, None)], "some server: broke", "some server: broke")
    table = report(RULES, [one])
    assert "| some server | 30.0 | 39.0 | 39.8 | 40.0 | 90.0 / 90.0 | 12.0 % | 2 of 3 |" in table
    assert table.count("some server: broke") == 1
    assert "| floor | 1" in table and "64 are the speech that interrupts" in table


def test_a_server_that_never_answers_keeps_its_row() -> None:
    one = Taken(Contender("mute", []), [Turn(None, None)] * 3)
    assert "| mute | – | – | – | – | – / – | – | 0 of 3 |" in report(RULES, [one])


def test_cases_are_no_delay_then_the_delays_under_each_rule() -> None:
    measured = list(cases([200, 300], [40, 120, 90]))
    assert [(rules.silence_ms, rules.models_ms) for rules in measured] == [(200, 0), (200, 250), (300, 250)]
    assert len(list(cases([200, 300], [0, 0, 0]))) == 1


def test_a_server_that_keeps_a_core_busy_is_measured_alone() -> None:
    assert side_by_side([0, 1, 2, 3, 4, 5], 2, {3}) == [[0, 1], [2], [3], [4, 5]]
    assert side_by_side([3, 0, 1], 2, {3}) == [[3], [0, 1]]
    assert side_by_side([0, 1], 1, set()) == [[0], [1]]


# --- peers


def test_each_framework_is_called_in_its_own_way() -> None:
    all_of_them = list(contenders(RULES, [PIPECAT, FASTRTC]))
    slow = list(contenders(Rules(200, 64, 40, 120, 90), [PIPECAT, FASTRTC]))
    assert [one.path for one in all_of_them] == [PATH, PATH, PATH, FASTRTC_PATH, FASTRTC_PATH]
    assert [one.interrupted for one in all_of_them] == [True, True, True, True, False]
    assert all(one.command[-5:] == RULES.arguments() for one in all_of_them[1:])
    assert [one.path for one in slow] == [PATH, PATH, PATH, PATH, FASTRTC_PATH]
    assert [one.alone for one in all_of_them + slow] == [False] * 4 + [True] + [False] * 5
    assert len(list(contenders(RULES, []))) == 2


def test_a_framework_that_cannot_be_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(peers, "FOLDER", tmp_path / "file")
    monkeypatch.setitem(peers.FRAMEWORKS, "broken", Framework("broken", ("no-matter",)))
    there, failures = asyncio.run(install(["broken"]))
    assert there == [] and len(failures) == 1
    assert "broken could not be installed" in failures[0] and "file" in failures[0]
    assert not peers.FRAMEWORKS["broken"].installed


def test_a_server_that_does_not_answer_is_told_and_counted() -> None:
    one = Taken(Contender("absent", []))
    asyncio.run(one.call(Server("http://127.0.0.1:9", os.getpid()), 3, seed=0))
    assert one.turns == [Turn(None, None)] * 3
    assert one.failures and "absent: ClientConnectorError" in one.failures[0]


def test_a_server_that_does_not_start_is_told_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Contender("broken", [sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(response_latency, "contenders", lambda rules, frameworks: [broken])
    ((one,),) = asyncio.run(measure([RULES], [], turns=2, rounds=2, abreast=2))
    assert len(one.turns) == 4 and added_s(one.turns, 200) == []
    assert one.failures == ["broken: RuntimeError: the server ended with code 3 before it listened"]


# --- runs


def test_delays_are_waited_out_one_after_the_other() -> None:
    rules = Rules(200, 64, 40, 120, 90)
    _, bare = contenders(rules, [])

    async def main() -> Taken:
        async with started(bare.command, bare.environment) as server:
            one = Taken(bare)
            await one.call(server, 2, seed=0)
            return one

    one = asyncio.run(main())
    assert not one.failures and len(added_s(one.turns, 200)) == 2
    assert min(added_s(one.turns, 200)) > 0.25


def test_the_command_prints_its_table() -> None:
    command = [sys.executable, "-m", "benchmarks.response_latency", "--peers", "none", "--delays", "0,0,0"]
    counts = ["--rounds", "1", "--turns", "2"]
    printed = subprocess.run([*command, *counts], check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert printed.returncode == 0, printed.stderr
    assert "| **Vocal Node** |" in printed.stdout and "| bare aiortc |" in printed.stdout
    assert printed.stdout.count("2 of 2") == 2
