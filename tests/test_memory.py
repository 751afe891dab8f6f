"""How much memory is free: what Linux and a container's limit say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import memory
from pipeline.errors import EngineUnavailable


def test_what_linux_says_is_available_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       8000000 kB\nMemAvailable:    2000000 kB\nBuffers:  17 kB\n")
    assert memory._available_bytes(tmp_path / "meminfo") == 2_000_000 * 1024
    assert memory._available_bytes(tmp_path / "none") > 0


@pytest.mark.parametrize(("most", "left"), [("3000000", 1_000_000), ("max", float("inf"))])
def test_a_container_s_limit_leaves_what_is_not_used(tmp_path: Path, most: str, left: float) -> None:
    (tmp_path / "memory.max").write_text(f"{most}\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    assert memory._container_bytes(tmp_path) == left
    assert memory._container_bytes(tmp_path / "none") == float("inf")


def test_this_machine_has_some() -> None:
    assert 0 < memory.free_bytes() < 2**60


def test_what_does_not_fit_says_both_figures() -> None:
    memory.require("a model", memory.GIB, memory.GIB, "cpu", "free some")
    with pytest.raises(EngineUnavailable, match=r"memory: a model needs 2\.5 GiB on cpu, 1\.0 GiB are free; free"):
        memory.require("a model", 2.5 * memory.GIB, memory.GIB, "cpu", "free some")
