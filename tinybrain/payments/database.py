"""Opens the ledger's database: SQLite in WAL mode on one machine.

Every write transaction begins with the write lock (`BEGIN IMMEDIATE`), so what it reads cannot
change before it commits; readers never wait.
"""

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tinybrain.errors import ConfigError, LedgerUnavailable

MIGRATIONS = "tinybrain.payments:migrations"
BUSY_TIMEOUT_MS = 10_000
WAL_PAUSE_MS = 20


class Database:
    """A pool of connections to a migrated database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> "Database":
        """Connect and migrate to the newest schema; safe from several processes at once.

        Raises:
            ConfigError: The URL names a database this version cannot use.
            LedgerUnavailable: The database cannot be opened.
        """
        parsed = make_url(url)
        if parsed.drivername != "sqlite+aiosqlite" or not parsed.database:
            raise ConfigError(
                f"TINYBRAIN_LEDGER_URL names {parsed.drivername!r}, which is not supported. Use "
                "sqlite+aiosqlite:////path/to/ledger.db, or leave it out."
            )
        try:
            # Who paid for what, and signed payments, are nobody else's business.
            Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerUnavailable(f"The ledger cannot be created: {error}") from error
        database = cls(create_async_engine(parsed))
        event.listen(database._engine.sync_engine, "connect", _configure_sqlite)
        event.listen(database._engine.sync_engine, "begin", _begin)
        try:
            async with database.write() as connection:
                await connection.run_sync(_migrate)
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading one consistent state."""
        try:
            async with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerUnavailable(f"The ledger cannot be read: {_cause(error)}") from error

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A connection that holds the write lock; commits at the end, rolls back on error."""
        try:
            async with self._engine.connect() as plain:
                connection = await plain.execution_options(write=True)
                async with connection.begin():
                    yield connection
        except SQLAlchemyError as error:
            raise LedgerUnavailable(f"The ledger cannot be written: {_cause(error)}") from error

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _cause(error: SQLAlchemyError) -> str:
    # The driver's own words: SQLAlchemy's carry the statement with its parameters, which would
    # put payers and signatures into logs.
    return str(getattr(error, "orig", None) or type(error).__name__)


def _configure_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # transactions are begun by `_begin`, not the driver
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    # SQLite does not wait for other processes here, as busy_timeout makes it do elsewhere; only
    # those who open a new database at the same moment ever meet.
    for _ in range(BUSY_TIMEOUT_MS // WAL_PAUSE_MS):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(WAL_PAUSE_MS / 1000)
        else:
            return
    cursor.execute("PRAGMA journal_mode = WAL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
