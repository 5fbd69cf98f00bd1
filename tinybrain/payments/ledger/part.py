"""What every part of the ledger stands on: the database, the clock, conditional updates."""

import time
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.errors import TinyBrainError
from tinybrain.payments.database import Database
from tinybrain.payments.records import Limits

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NOTE_CHARS = 300


class IllegalTransition(TinyBrainError):
    """A row was not in the state that the transition starts from."""

    default_code = "illegal_transition"


class LedgerPart:
    """Holds the database; `clock` tells Unix seconds."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        limits: Limits | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._limits = limits or Limits()

    def now_ms(self) -> int:
        """Unix milliseconds by the ledger's clock."""
        return int(self._clock() * 1000)


def values_of(record: "DataclassInstance") -> dict[str, Any]:
    """A record's fields by name. dataclasses.asdict would copy every payload in depth."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


async def change(
    connection: AsyncConnection, table: Table, where: ColumnElement[bool], **values: object
) -> int:
    """Update the rows that are as expected; returns how many were."""
    result = await connection.execute(update(table).where(where).values(**values))
    return result.rowcount


async def require_change(
    connection: AsyncConnection,
    table: Table,
    where: ColumnElement[bool],
    refusal: str,
    **values: object,
) -> None:
    """Update exactly one row.

    Raises:
        IllegalTransition: It is not in the expected state; `refusal` is the message.
    """
    if await change(connection, table, where, **values) != 1:
        raise IllegalTransition(refusal)
