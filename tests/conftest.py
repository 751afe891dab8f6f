"""Hygiene for every test: no thread left, no task left to complain, no key told; in CI no skip passes for green."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from pipeline import engines
from tests import canary
from tests.postgres import Postgres, running_postgres

THREADS_MAY_END_S = 5.0

os.environ["VOCAL_OFFLINE"] = "1"
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
"""No test asks a hub but its own; with settings that do not say so, it finds nobody there."""


SLOWEST = """
    whole_call browser transformers browser_websocket four_services page_voices engines call peer keys accessibility
    hardening benchmarks_engines status_page page_recording many_websockets xtts_stream hub pipecat_client launcher
    conversations bystander services faster_whisper page_agents models transcribe
"""
"""The files that take longest, for workers beside each other to begin with: none is left alone with one at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let workers take the slowest files first (`--no-loadscope-reorder`: pytest-xdist would count tests, not time)."""
    if hasattr(config, "workerinput"):
        places = {f"test_{name}": place for place, name in enumerate(SLOWEST.split())}
        items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread of its own running. Daemons of pytest and of libraries' import are older."""
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + THREADS_MAY_END_S
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline_s - time.monotonic()))
        assert not thread.is_alive(), f"thread left behind: {thread.name}"


MAY_BLOCK = (
    ("media_server/opus.py", "libopus"),  # once, at start
    ("media_server/patching.py", "require_versions"),  # once, at start
    ("web/__init__.py", "add_routes"),  # reads the page, at start
    ("media_server/__init__.py", "version"),  # once, at start
    ("media_server/metrics.py", "process"),  # reads /proc, which is memory
    ("media_server/metrics.py", "render"),  # the same
    ("pipeline/database.py", "_engine"),  # makes a path absolute, at start
    ("pipeline/database.py", "_prepare_file"),  # once, at start
    ("pipeline/migrations/__init__.py", "upgrade"),  # reads the versions' files, at start
    ("pipeline/threads.py", "close"),  # joins the engines' threads, at the end
    ("asyncpg/connect_utils.py", "_parse_connect_dsn_and_args"),  # looks for certificates, when it connects
    ("aiortc/rtcrtpreceiver.py", "__stop_decoder"),  # of peers without our tap, which a test may have
    ("logging/__init__.py", "handle"),  # reads source lines for a traceback
    ("tests/recordings.py", "recording"),
)


@pytest.fixture(scope="session", autouse=True)
def no_blocking_call_on_the_loop() -> Iterator[None]:
    """Fail where our own code waits for a file, a socket or a clock while the event loop runs. To arm it takes 5 ms.

    Engines' modules are there before, as a server has them that has started: any test may be the only one that runs.
    """
    for kind in engines.CONTRACTS:
        for name in engines.names(kind):
            engines.module(kind, name)
    with blockbuster_ctx(["compat_ws", "media_server", "pipeline", "signaling", "web"]) as guard:
        for function in guard.functions.values():
            for place in MAY_BLOCK:
                function.can_block_in(*place)
        yield


@pytest.fixture(autouse=True)
def no_key_is_told() -> Iterator[list[str]]:
    """Fail where a key gets into a log or an error."""
    with canary.watched() as told:
        yield told


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server of our own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder/of its own/vocal.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.new_database())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, None, None]:
    """In CI everything a test needs is installed: a skip there is a failure with its reason."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be: {report.longrepr}"
