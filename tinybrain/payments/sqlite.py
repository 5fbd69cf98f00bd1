"""The ledger in one SQLite file: WAL, synced commits, and few thread switches.

Knows SQLite and its driver; knows nothing of the ledger's tables.
"""

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tinybrain.errors import LedgerUnavailable

BUSY_TIMEOUT_S = 10.0
WAL_PAUSE_S = 0.02
CONNECTIONS = 16
CACHE_KIB = 256
"""Pages each connection keeps. The system caches the file too, and with SQLite's 2 MiB memory
grew over thousands of answers (benchmarks/README.md)."""


def create_sqlite_engine(url: URL) -> AsyncEngine:
    """Connections to the file that `url` names; its folder is made, for its owner alone.

    Raises:
        LedgerUnavailable: The folder cannot be made.
    """
    try:
        # Who paid for what, and signed payments, are nobody else's business.
        Path(url.database or "").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerUnavailable(f"The ledger cannot be created: {error}") from error
    engine = create_async_engine(
        url,
        connect_args={"async_creator_fn": SQLiteConnection},
        hide_parameters=True,
        # Kept once opened: a connection is a thread, and opening one costs more than using it.
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
    )
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


class SQLiteConnection(aiosqlite.Connection):
    """aiosqlite's connection with one switch to its thread a statement, where it makes four.

    A transaction begins in the same switch as its first statement.
    """

    def __init__(self, path: str, **_: object) -> None:
        super().__init__(lambda: _connect(path), iter_chunk_size=64)
        self._thread.daemon = True  # else a process that did not close it could not exit
        self._begin: str | None = None

    def begin(self, statement: str) -> None:
        """Execute `statement` before the next one."""
        self._begin = statement

    def take_begin(self) -> str | None:
        """What is to be executed before the statement that asks, which is the first."""
        statement, self._begin = self._begin, None
        return statement

    async def _connect(self) -> Self:
        try:
            await super()._connect()
        except BaseException:
            # aiosqlite ends its thread without waiting, and the thread reports to this loop.
            await asyncio.to_thread(self._thread.join)
            raise
        return self

    def cursor(self) -> "SQLiteCursor":  # type: ignore[override]  # nothing to wait for
        """A cursor; making one touches no file, so it needs no switch."""
        return SQLiteCursor(self, self._conn.cursor())

    async def commit(self) -> None:
        """End the transaction, if a statement began it."""
        if self.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        """End the transaction, if there is one; SQLAlchemy asks even after a commit."""
        if self.in_transaction:
            await super().rollback()


class SQLiteCursor(aiosqlite.Cursor):
    """A cursor that fetches all rows in the switch that executes the statement."""

    _rows: Iterator[Any] = iter(())
    _conn: SQLiteConnection

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Self:
        """Execute the statement and keep its rows."""
        rows = await self._execute(  # type: ignore[no-untyped-call]  # aiosqlite's
            _execute, self._cursor, self._conn.take_begin(), sql, parameters or ()
        )
        self._rows = iter(rows)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        """Execute the statement once for each of `parameters`."""
        await self._execute(  # type: ignore[no-untyped-call]  # aiosqlite's
            _execute_many, self._cursor, self._conn.take_begin(), sql, parameters
        )
        return self

    async def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self._rows, None)

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows, at most `size`."""
        return list(islice(self._rows, size or self.arraysize))

    async def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return list(self._rows)

    async def close(self) -> None:
        """Nothing to do: the statement was reset when its last row was fetched."""


def _execute(
    cursor: sqlite3.Cursor, begin: str | None, sql: str, parameters: Iterable[Any]
) -> list[Any]:
    _begin_first(cursor, begin)
    return cursor.execute(sql, tuple(parameters)).fetchall()


def _execute_many(
    cursor: sqlite3.Cursor, begin: str | None, sql: str, parameters: Iterable[Iterable[Any]]
) -> None:
    _begin_first(cursor, begin)
    cursor.executemany(sql, map(tuple, parameters))


def _begin_first(cursor: sqlite3.Cursor, begin: str | None) -> None:
    if begin is not None:
        cursor.execute(begin)


def _begin(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, SQLiteConnection)  # noqa: S101  # see `async_creator_fn`
    writes = connection.get_execution_options().get("write", False)
    driver.begin("BEGIN IMMEDIATE" if writes else "BEGIN")


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,  # a transaction's first statement begins it, not the driver
        check_same_thread=False,  # cursors are made in the event loop's thread
    )
    try:
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for other processes here, as its timeout makes it do elsewhere; only
    # those who open a new database at the same moment ever meet.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(WAL_PAUSE_S)
        else:
            return
