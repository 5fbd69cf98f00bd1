"""The ledger in PostgreSQL, for several machines: one write lock, bounded waits, recovery.

Knows PostgreSQL and asyncpg; knows nothing of the ledger's tables.
"""

from functools import partial
from importlib import import_module
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tinybrain.errors import ConfigError

CONNECT_TIMEOUT_S = 5.0
WAIT_S = 10.0
IDLE_TIMEOUT_S = 5.0
CONNECTIONS = 10
WRITE_LOCK = 0x7469_6E79_6272_6169
"""Key of the advisory lock that every write transaction holds: "tinybrai"."""


def create_postgresql_engine(url: URL) -> AsyncEngine:
    """Connections to the server that `url` names, in libpq's form; none is opened yet.

    Raises:
        ConfigError: asyncpg is not installed.
    """
    try:
        asyncpg = import_module("asyncpg")
    except ModuleNotFoundError:
        raise ConfigError(
            "TINYBRAIN_LEDGER_URL names PostgreSQL, and its driver is not installed. Install it "
            "with: pip install tinybrain[postgres]"
        ) from None
    engine = create_async_engine(
        "postgresql+asyncpg://",
        # asyncpg reads the URL itself, because it knows libpq's options (sslmode and others).
        async_creator=partial(
            asyncpg.connect,
            url.set(drivername="postgresql").render_as_string(hide_password=False),
            timeout=CONNECT_TIMEOUT_S,
            server_settings=_server_settings(),
        ),
        # Enough for writes too: under the write lock, each statement sees all that was committed
        # before. A snapshot for the whole transaction would be older than the lock.
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=WAIT_S,
    )
    event.listen(engine.sync_engine, "begin", _begin)
    event.listen(engine.sync_engine, "checkout", _replace_closed)
    return engine


def _server_settings() -> dict[str, str]:
    return {
        "application_name": "tinybrain",
        "synchronous_commit": "on",  # a commit survives a power cut
        "lock_timeout": _milliseconds(WAIT_S),
        # Less than the others wait: a process that hangs must not keep the lock from them.
        "idle_in_transaction_session_timeout": _milliseconds(IDLE_TIMEOUT_S),
    }


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("write", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")


def _replace_closed(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
    # The driver notices when the server goes, so no round trip is needed to find out.
    if dbapi_connection.driver_connection.is_closed():
        raise InvalidatePoolError
