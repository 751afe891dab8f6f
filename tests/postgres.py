"""A PostgreSQL server of our own for tests: a new cluster in a folder of its own, reached through a Unix socket."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

PASSWORD = "swordfish"
UNSAFE = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=40"


class Postgres:
    """A running server; ``folder`` has its socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, database: str) -> str:
        """Return a database's URL, as an operator writes it."""
        return f"postgres://vocal:{PASSWORD}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"test_{secrets.token_hex(4)}"
        asyncio.run(self.execute(f"CREATE DATABASE {name}"))
        return name

    async def execute(self, sql: str, database: str = "postgres") -> None:
        """Run one statement, on a connection of its own."""
        connection = await asyncpg.connect(
            host=str(self.folder), user="vocal", password=PASSWORD, database=database, timeout=10
        )
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server. Skips where PostgreSQL is not installed."""
    bin_folder = _bin_folder()
    folder = Path(tempfile.mkdtemp(prefix="vocal-postgres-", dir="/tmp"))  # short: a socket's path has 107 bytes
    cluster = folder / "cluster"
    password = folder / "password"
    password.write_text(PASSWORD)
    _give(folder)
    try:
        _run(bin_folder / "initdb", "-D", cluster, "-U", "vocal", "-A", "scram-sha-256", "--pwfile", password, "-N")
        options = f"{UNSAFE} -c listen_addresses= -c unix_socket_directories={folder}"
        _run(bin_folder / "pg_ctl", "-D", cluster, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            yield Postgres(folder)
        finally:
            _run(bin_folder / "pg_ctl", "-D", cluster, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _bin_folder() -> Path:
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *(Path(p) for p in os.get_exec_path())]
    found = next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found


def _owner() -> pwd.struct_passwd | None:
    """Return who runs the server, None being this user: it refuses to be root's."""
    if os.geteuid() != 0:
        return None
    return pwd.getpwnam("nobody")


def _give(folder: Path) -> None:
    if (owner := _owner()) is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)


def _run(*command: object) -> None:
    owner = _owner()
    arguments = [str(part) for part in command]
    user = owner.pw_uid if owner else None
    group = owner.pw_gid if owner else None
    # no pipes: the server would inherit them, and hold them open
    with tempfile.TemporaryFile("w+") as output:
        ended = subprocess.run(
            arguments,
            check=False,
            user=user,
            group=group,
            extra_groups=[] if owner else None,
            cwd="/",
            stdout=output,
            stderr=output,
        )
        output.seek(0)
        assert ended.returncode == 0, f"{arguments[0]}: {output.read()}"
