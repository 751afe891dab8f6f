"""The echo benchmark: its material, and its tables of a little of it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import echo
from benchmarks.echo import PATHS, PEOPLE, TEXTS, Judge, agents, callers, echoes, returned


def test_the_halves_share_nothing() -> None:
    tuned, held = ({name for name, _ in agents(half)} for half in TEXTS)
    assert len(tuned) == len(held) == 5 and not tuned & held
    assert not set(PEOPLE["tuned on"]) & set(PEOPLE["held out"])


@pytest.mark.parametrize("path", PATHS)
def test_an_echo_is_as_late_and_as_soft_as_its_path_says(path: str) -> None:
    way = PATHS[path]
    burst = np.zeros(48_000, np.int16)
    burst[24_000:26_400] = (np.sin(np.arange(2_400) * 2 * np.pi * 1_000 / 24_000) * 12_000).astype(np.int16)
    heard = np.abs(returned(burst, way).astype(int))
    peak = 12_000 * 10 ** (way.level_db / 20)
    late_ms = int(np.flatnonzero(heard > peak / 3)[0]) / 16 - 1_000
    assert way.delay_ms - 1 <= late_ms <= way.delay_ms + 15  # Opus has a delay of its own, both ways
    assert heard.max() == pytest.approx(peak, rel=0.6)


def test_it_prints_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    name, voice = "80 ms, -20 dB", next(agents("held out"))
    monkeypatch.setattr(echo, "PATHS", {name: PATHS[name]})
    monkeypatch.setattr(echo, "DOUBLE_TALK", (name,))
    monkeypatch.setattr(echo, "OVER_DB", (20,))
    monkeypatch.setattr(echo, "ALONE_DBFS", (-20,))
    monkeypatch.setattr(echo, "agents", lambda half: iter([voice]))
    judge = Judge()
    (returns,) = echoes(judge, "held out").splitlines()[2:]
    _, _, windows, passed, without, with_echo, _ = returns.split("|")
    assert int(windows) > 100 and float(passed.strip(" %")) < 3
    assert int(without) > 0 and int(with_echo) == 0
    alone, over = callers(judge, "held out").splitlines()[2:]
    assert "| 0 of 2 |" in alone and "| 0 of 2 |" in over
    assert judge.decisions > 100 and judge.spent_s > 0
