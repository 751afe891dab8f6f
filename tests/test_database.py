"""The database under the catalogue: SQLite and PostgreSQL for real, from no table to the newest version."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from pipeline import database as module
from pipeline import tables
from pipeline.database import Database
from pipeline.errors import EngineError
from tests.postgres import PASSWORD, Postgres

ROOT = Path(__file__).parent.parent
PROCESSES = 4
OPEN = """
import asyncio, sys
from pipeline.database import Database
from pipeline.tables import agents

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with Database(sys.argv[1]) as database, database.reading() as connection:
        print([row.id for row in await connection.execute(agents.select())])

asyncio.run(main())
"""


async def execute(database: Database, sql: str) -> None:
    async with database.writing() as connection:
        await connection.execute(text(sql))


async def count_agents(database: Database) -> int:
    async with database.reading() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM agents")) or 0)


def why_not(url: str) -> str:
    async def main() -> None:
        async with Database(url):
            pytest.fail("it was opened")

    with pytest.raises(EngineError) as caught:
        asyncio.run(main())
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    return message


def test_the_migrations_make_the_tables_that_the_code_uses(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))

    async def main() -> None:
        async with Database(database_url) as database, database.reading() as connection:
            assert await connection.run_sync(differences) == []

    asyncio.run(main())


def test_what_was_kept_is_there_again(database_url: str) -> None:
    async def main() -> None:
        async with Database(database_url) as database:
            await execute(database, "DELETE FROM agents")
        async with Database(database_url) as database:
            assert await count_agents(database) == 0

    asyncio.run(main())


def test_voices_of_the_first_version_are_made_at_no_vendor(database_url: str) -> None:
    async def main() -> None:
        async with Database(database_url) as database:
            await execute(database, "ALTER TABLE voices DROP COLUMN engines")
            await execute(database, "INSERT INTO voices (id, name, duration_s, sha256) VALUES ('a', 'A', 3, 'ff')")
            await execute(database, "UPDATE alembic_version SET version_num = '0001'")
        async with Database(database_url) as database, database.reading() as connection:
            (voice,) = (await connection.execute(tables.voices.select())).all()
            assert (voice.id, voice.sha256, voice.engines) == ("a", "ff", {})

    asyncio.run(main())


def test_many_processes_may_start_at_once(database_url: str) -> None:
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, database_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    assert [process.stdout.readline() for process in starting if process.stdout] == ["ready\n"] * PROCESSES
    for process in starting:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) for process in starting] == [("['default']\n", "")] * PROCESSES


def test_the_versions_are_found_wherever_the_package_is_installed(tmp_path: Path) -> None:
    installed = tmp_path / "100%d odd"
    shutil.copytree(ROOT / "pipeline", installed / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    ended = subprocess.run(
        [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/vocal.db"],
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
        input="\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr) == ("ready\n['default']\n", "")


def test_a_newer_database_is_refused_and_left_alone(database_url: str) -> None:
    async def version(sql: str) -> None:
        async with Database(database_url) as database:
            await execute(database, sql)

    asyncio.run(version("UPDATE alembic_version SET version_num = '9999'"))
    message = why_not(database_url)
    assert "newer" in message
    assert "9999" in message
    assert "0002" in message
    assert why_not(database_url) == message


def test_logging_is_as_it_was(database_url: str) -> None:
    logger = logging.getLogger("a logger that exists")

    def settings() -> object:
        root = logging.getLogger()
        return [*root.handlers], root.level, logger.disabled, logger.level, logging.root.manager.disable

    async def main() -> None:
        async with Database(database_url):
            pass

    before = settings()
    asyncio.run(main())
    assert settings() == before


def test_a_transaction_happens_whole_or_not_at_all(database_url: str) -> None:
    class Fault(Exception):
        pass

    async def main() -> None:
        async with Database(database_url) as database:
            with suppress(Fault):
                async with database.writing() as connection:
                    await connection.execute(text("DELETE FROM agents"))
                    raise Fault
            assert await count_agents(database) == 1

    asyncio.run(main())


def test_writers_come_one_after_the_other(database_url: str) -> None:
    """Each reads and then writes: with a lock taken only then, two of them would both have read the same."""

    async def add(database: Database) -> None:
        async with database.writing() as connection:
            there_are = await connection.scalar(text("SELECT count(*) FROM voices"))
            await connection.execute(
                text("INSERT INTO voices (id, name, duration_s, sha256) VALUES (:id, 'n', 3, 'ff')"),
                {"id": f"v{there_are}"},
            )

    async def main() -> None:
        async with Database(database_url) as one, Database(database_url) as two:
            await asyncio.gather(*(add(database) for database in (one, two) for _ in range(8)))
            async with one.reading() as connection:
                assert await connection.scalar(text("SELECT count(*) FROM voices")) == 16

    asyncio.run(main())


def test_canceling_leaves_nothing_locked(database_url: str) -> None:
    async def main() -> None:
        async with Database(database_url) as database:
            for turns in range(30):
                writing = asyncio.create_task(execute(database, "UPDATE agents SET speed = 2"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                writing.cancel()
                await asyncio.wait([writing])
            async with asyncio.timeout(20):
                await execute(database, "UPDATE agents SET speed = 3")
                assert await count_agents(database) == 1

    asyncio.run(main())


def test_a_failing_statement_is_our_fault_and_quotes_no_values(database_url: str) -> None:
    async def main() -> None:
        async with Database(database_url) as database:
            with pytest.raises(EngineError) as caught:
                async with database.writing() as connection:
                    await connection.execute(
                        tables.agents.insert().values(id="default", name="secret", system_prompt="secret")
                    )
            assert "secret" not in str(caught.value)
            assert "secret" not in str(caught.value.__cause__)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must be sqlite:///FILE or postgresql://"),
        (f"mysql://u:{PASSWORD}@h/n", "must be sqlite:///FILE or postgresql://"),
        (f"postgres://u:{PASSWORD}@h:{PASSWORD}/n", "must be sqlite:///FILE or postgresql://"),
        (PASSWORD, "must be sqlite:///FILE or postgresql://"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///vocal.db?mode=ro", "must name a file"),
        (f"postgres://h/n?password={PASSWORD}", "an option that is unknown here, 'password'"),
        (f"postgres://u:{PASSWORD}@127.0.0.1:1/n", "Connect call failed"),
        (f"postgres://u:{PASSWORD}@127.0.0.1:1/n?sslmode=perhaps", "`sslmode` parameter must be one of"),
        (f"postgres://u:{PASSWORD}@/n?host=/nowhere", "No such file or directory"),
        ("sqlite:////proc/vocal/vocal.db", "cannot make the folder /proc/vocal for the database"),
        (
            "sqlite:////proc/vocal.db",
            "database file (sqlite:////proc/vocal.db; VOCAL_DATA_DIR or VOCAL_DATABASE_URL names another)",
        ),
        (f"sqlite:///{__file__}/vocal.db", "test_database.py for the database: File exists"),
        (f"sqlite:///{__file__}", "file is not a database"),
    ],
)
def test_what_cannot_be_opened_is_one_line_without_a_secret(url: str, said: str) -> None:
    assert said in why_not(url)


def test_postgresql_refuses_in_one_line_too(postgres: Postgres) -> None:
    assert 'database "nowhere" does not exist (postgresql://vocal:***@/nowhere' in why_not(postgres.url("nowhere"))
    message = why_not(postgres.url("postgres").replace(PASSWORD, "wrong"))
    assert "password authentication failed" in message
    assert "wrong" not in message


def test_a_connection_that_was_lost_is_made_again(postgres: Postgres) -> None:
    name = postgres.new_database()
    end_others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname"

    async def main() -> None:
        async with Database(postgres.url(name)) as database:
            assert await count_agents(database) == 1
            await postgres.execute(f"{end_others} = '{name}'")
            assert await count_agents(database) == 1
            await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
            with pytest.raises(EngineError, match=r"the database failed: .* does not exist"):
                await count_agents(database)

    asyncio.run(main())


def test_a_database_that_another_program_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vocal.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (id)")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(module, "WAIT_S", 0.2)
        assert "database is locked" in why_not(f"sqlite:///{file}")
        monkeypatch.setattr(module, "WAIT_S", 10.0)

        async def main() -> None:
            asyncio.get_running_loop().call_later(0.1, other.execute, "COMMIT")
            async with Database(f"sqlite:///{file}") as database:
                assert await count_agents(database) == 1

        asyncio.run(main())
