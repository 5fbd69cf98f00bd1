"""The ledger's database: opening, migrating, and its two kinds of transaction.

Every write transaction holds the write lock from its first statement on, so what it reads cannot
change before it commits; readers never wait. SQLite and PostgreSQL behave the same here;
`sqlite.py` and `postgresql.py` say how.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tinybrain.errors import ConfigError, LedgerUnavailable
from tinybrain.payments.postgresql import create_postgresql_engine
from tinybrain.payments.sqlite import create_sqlite_engine

MIGRATIONS = "tinybrain.payments:migrations"
TRANSACTION_TIMEOUT_S = 15.0
"""Longest a transaction may take with all its waiting; the databases' own limits are shorter."""


class Database:
    """A pool of connections to a migrated database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # Writers of one process queue here, first come, first served: a queue in the database
        # would take up connections that readers need, and SQLite has none, it polls.
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, *, migrate: bool = True) -> "Database":
        """Connect and migrate to the newest schema; safe from several processes at once.

        Raises:
            ConfigError: The URL names a database this version cannot use, or one that is not of
                this version and is not to be migrated.
            LedgerUnavailable: The database cannot be opened.
        """
        database = cls(_create_engine(url))
        try:
            if migrate:
                async with database._write(timeout_s=None) as connection:
                    await connection.run_sync(_migrate)
            else:
                async with database.read() as connection:
                    await connection.run_sync(_require_newest)
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading one consistent state.

        Raises:
            LedgerUnavailable: It cannot be read, or not in time.
        """
        with _translated("read"):
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S), self._engine.connect() as connection:
                if self._engine.dialect.name == "postgresql":
                    await connection.execution_options(
                        isolation_level="REPEATABLE READ", postgresql_readonly=True
                    )
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A connection that holds the write lock from its first statement on.

        Commits at the end, rolls back on error.

        Raises:
            LedgerUnavailable: It cannot be written, or not in time. If the connection was lost
                while it committed, the transaction may stand or not.
        """
        async with self._write(timeout_s=TRANSACTION_TIMEOUT_S) as connection:
            yield connection

    @asynccontextmanager
    async def _write(self, *, timeout_s: float | None) -> AsyncIterator[AsyncConnection]:
        with _translated("written"):
            async with (
                asyncio.timeout(timeout_s),
                self._writing,
                self._engine.connect() as connection,
            ):
                await connection.execution_options(write=True)
                async with connection.begin():
                    yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _create_engine(url: str) -> AsyncEngine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise _unsupported("something that is no URL") from None
    match parsed.drivername:
        case "sqlite+aiosqlite" if parsed.database:
            return create_sqlite_engine(parsed)
        case "postgresql+asyncpg" | "postgresql" | "postgres":
            return create_postgresql_engine(parsed)
    raise _unsupported(repr(parsed.drivername))


def _unsupported(what: str) -> ConfigError:
    return ConfigError(
        f"TINYBRAIN_LEDGER_URL names {what}, which is not supported. Use "
        "sqlite+aiosqlite:////path/to/ledger.db or postgresql://user:password@host/database, "
        "or leave it out."
    )


@contextmanager
def _translated(done: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise LedgerUnavailable(
            f"The ledger cannot be {done}: it did not answer in time."
        ) from None
    except (SQLAlchemyError, OSError) as error:
        # Not "from error": tracebacks in logs would show its rows, with payers and signatures.
        raise LedgerUnavailable(f"The ledger cannot be {done}: {_cause(error)}") from None


def _cause(error: SQLAlchemyError | OSError) -> str:
    # The driver's own words: SQLAlchemy's carry the statement with its parameters.
    cause: Any = getattr(error, "orig", None) or error
    driver_error = cause.__cause__ or cause
    wrong_value = (getattr(driver_error, "sqlstate", None) or "").startswith("22")
    if wrong_value or isinstance(driver_error, ValueError):
        return type(driver_error).__name__  # PostgreSQL's words about wrong values quote them
    return str(cause) or type(cause).__name__


def _require_newest(connection: Connection) -> None:
    newest = ScriptDirectory.from_config(_alembic()).get_current_head()
    if MigrationContext.configure(connection).get_current_revision() != newest:
        raise ConfigError(
            "The database holds no ledger, or one of another version. The service makes it or "
            "brings it up to date when it starts."
        )


def _migrate(connection: Connection) -> None:
    # SQLite's lock comes with the first statement, and Alembic keeps its state in globals before
    # it makes one.
    connection.execute(select(1))
    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.set_main_option("path_separator", "os")
    return config
