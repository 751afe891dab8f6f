"""The page's modules hold what their JSDoc types say: TypeScript reads them, strictly; nothing is built."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "page_types"


def test_the_types_of_the_page_hold() -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine: apt-get install npm")
    if not (FOLDER / "node_modules").is_dir():
        subprocess.run([npm, "ci", "--loglevel=error"], cwd=FOLDER, check=True, timeout=200)
    tsc = [npm, "exec", "--", "tsc", "-p", "."]
    checked = subprocess.run(tsc, check=False, cwd=FOLDER, capture_output=True, text=True, timeout=200)
    assert checked.returncode == 0, checked.stdout + checked.stderr
