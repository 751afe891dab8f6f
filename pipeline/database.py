"""One database, SQLite or PostgreSQL: opened, brought up to date, read and written."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from sqlite3 import OperationalError
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
        self._engine: AsyncEngine | None = None

    async def __aenter__(self) -> Self:
        if _is_sqlite(self._url):
            _make_folder(self._url)
        self._engine = _engine(self._url)
        try:
            async with self.writing() as connection:
                await connection.run_sync(migrations.upgrade)
        except EngineError as error:
            await self._engine.dispose()
            raise EngineError(f"{error} ({self._shown()}; VOCAL_DATABASE_URL names another)") from error
        except BaseException:
            await self._engine.dispose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.dispose()

    def _shown(self) -> str:
        """Return the URL without its password, as it may be written in the environment."""
        return self._url.set(drivername=self._url.get_backend_name()).render_as_string(hide_password=True)

    @property
    def _opened(self) -> AsyncEngine:
        assert self._engine is not None, "the database is not open"
        return self._engine

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Read one state of the database. Raises EngineError where it fails."""
        with self._explained():
            async with self._opened.begin() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Read and write as if nobody else did: all of it happens, or nothing. Raises EngineError where it fails."""
        with self._explained():
            async with self._opened.execution_options(writing=True).begin() as connection:
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
        return (SQLAlchemyError, OSError)
    try:
        import asyncpg  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise EngineError("PostgreSQL needs a driver: pip install vocal-node[postgres]") from None
    return (SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def _make_folder(url: URL) -> None:
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"cannot make the folder {folder} for the database: {error.strerror}") from None


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
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: object) -> None:
    """Set up a connection to SQLite.

    The journal's mode is the file's, and who changes it does not wait for others: one that is locked here is being
    changed by another process that starts.
    """
    cursor = connection.cursor()
    with suppress(OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Begin in SQLite. A writer takes the lock first: two readers that both went on to write could not both win."""
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _reason(error: Exception) -> str:
    """Return the driver's first line: further ones quote rows."""
    origin = getattr(error, "orig", None) or error
    return next(iter(str(origin).splitlines()), "") or type(origin).__name__
