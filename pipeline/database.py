"""One database, SQLite or PostgreSQL: opened, brought up to date, read and written."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import event, func, select
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from . import migrations
from .errors import EngineError

log = logging.getLogger(__name__)

CONNECT_S = 5.0
WAIT_S = 10.0
"""For a statement, for another writer, or for a connection."""
CONNECTIONS = 4
WRITERS_LOCK = 0x766F63616C
"""The key of PostgreSQL's advisory lock: one writer at a time, as SQLite has it anyway."""

SCHEMES = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
OPTIONS = {"host": "host", "port": "port", "ssl": "ssl", "sslmode": "ssl"}
"""What may follow the ``?`` of a PostgreSQL URL, and the driver's name for it."""

Failures = tuple[type[Exception], ...]


class Database:
    """Use as ``async with``: the tables are up to date on the way in, every connection is closed on the way out."""

    def __init__(self, url: str) -> None:
        """``url`` is ``sqlite:///FILE`` or ``postgresql://...``. Raises EngineError for another, without showing it."""
        self._url = _parse(url)
        self._failures = _failures(self._url)
        self._engine = _engine(self._url)

    async def __aenter__(self) -> Self:
        try:
            if _is_sqlite(self._url):
                with self._explained():
                    _prepare_file(Path(str(self._url.database)))
            async with self.writing() as connection:
                await connection.run_sync(migrations.upgrade)
        except EngineError as error:
            await self._engine.dispose()
            raise EngineError(f"{error} ({self._shown()}; {self._named_by()} names another)") from error
        except BaseException:
            await self._engine.dispose()
            raise
        log.info("agents and voices are kept in %s", self._shown())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    def _shown(self) -> str:
        """Return the URL without its password, as it may be written in the environment."""
        return self._url.set(drivername=self._url.get_backend_name()).render_as_string(hide_password=True)

    def _named_by(self) -> str:
        return "VOCAL_DATA_DIR or VOCAL_DATABASE_URL" if _is_sqlite(self._url) else "VOCAL_DATABASE_URL"

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Read. Raises EngineError where it fails."""
        with self._explained():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Read and write as if nobody else did: all of it happens, or nothing. Raises EngineError where it fails."""
        with self._explained():
            async with self._engine.execution_options(writing=True).begin() as connection:
                if not _is_sqlite(self._url):
                    await connection.execute(select(func.pg_advisory_xact_lock(WRITERS_LOCK)))
                yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise EngineError(f"the database failed: {_reason(error)}") from error


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
        scheme = SCHEMES[url.drivername]
    except (ArgumentError, ValueError, KeyError):
        raise EngineError("VOCAL_DATABASE_URL must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME") from None
    url = url.set(drivername=scheme)
    if _is_sqlite(url):
        if url.query or url.host or not url.database or url.database == ":memory:":
            raise EngineError("VOCAL_DATABASE_URL must name a file: sqlite:///FILE, or sqlite:////FILE from the root")
        return url
    return url.set(query=_options(url.query))


def _options(query: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in query if name not in OPTIONS]
    if unknown:
        raise EngineError(
            f"VOCAL_DATABASE_URL has an option that is unknown here, {unknown[0]!r:.64}; known: {', '.join(OPTIONS)}"
        )
    return {OPTIONS[name]: value for name, value in query.items()}


def _is_sqlite(url: URL) -> bool:
    return url.drivername == SCHEMES["sqlite"]


def _failures(url: URL) -> Failures:
    """Return what can be raised when the database fails: PostgreSQL's driver raises its own while it connects."""
    if _is_sqlite(url):
        return (SQLAlchemyError, OSError, sqlite3.Error)
    try:
        import asyncpg  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise EngineError("PostgreSQL needs a driver: pip install vocal-node[postgres]") from None
    return (SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def _prepare_file(path: Path) -> None:
    """Make the file's folder, and try whether SQLite can work with it. Blocks: a second at most, where it is in use.

    The journal's mode stays in the file. Where that is locked, another process that starts is setting it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts are nobody else's
    except OSError as error:
        raise EngineError(f"cannot make the folder {path.parent} for the database: {error.strerror}") from None
    with closing(sqlite3.connect(path, timeout=1.0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise


def _engine(url: URL) -> AsyncEngine:
    postgres = {"timeout": CONNECT_S, "command_timeout": WAIT_S}
    # SQLite: no transactions of the driver's own, which would begin none for DDL and none that waits for its turn
    sqlite = {"timeout": WAIT_S, "isolation_level": None}
    engine = create_async_engine(
        url,
        connect_args=sqlite if _is_sqlite(url) else postgres,
        hide_parameters=True,  # they hold prompts
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=WAIT_S,
        pool_pre_ping=not _is_sqlite(url),  # a server that was restarted
    )
    if _is_sqlite(url):
        event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    """Begin in SQLite. A writer takes the lock first: two readers that both went on to write could not both win."""
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _reason(error: Exception) -> str:
    """Return the driver's first line: further ones quote rows."""
    origin = getattr(error, "orig", None) or error
    return next(iter(str(origin).splitlines()), "") or type(origin).__name__
