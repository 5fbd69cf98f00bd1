"""Which row a transfer on the chain belongs to.

A row is found by the authorization that moved the money, its payer and nonce, which the token
lets happen once; an owner's own transfer by its transaction.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Column, Row, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.eip3009 import Transfer
from tinybrain.payments.schema import entries, payments, purchases

Place = tuple[str, str | None]
"""Who signed an authorization, and its nonce."""


Kind = Literal["payment", "purchase"]
SOURCES: tuple[tuple[Kind, Table, Column[Any]], ...] = (
    ("payment", payments, entries.c.payment_id),
    ("purchase", purchases, entries.c.purchase_id),
)
"""The tables whose rows move money on the chain, and where entries name them."""


class Explained(NamedTuple):
    """A row, and what its entries so far moved in and out of each wallet of ours."""

    kind: Kind
    row: Row[Any]
    booked: Counter[str]

    @property
    def subject(self) -> str:
        """How it is named to people."""
        return f"{self.kind} {self.row.id}"


class Token(NamedTuple):
    """The token whose movements are looked at, as the ledger's rows name it."""

    network: str
    asset: str


async def explain(
    connection: AsyncConnection, token: Token, transfers: Iterable[Transfer], *, up_to: int
) -> dict[Place, Explained]:
    """The rows that made these transfers, with the entries whose id is at most `up_to`."""
    places = [(made.sender, made.nonce) for made in transfers if made.nonce is not None]
    found: dict[Place, Explained] = {}
    for kind, table, named in SOURCES:
        of_token = (table.c.network == token.network) & (table.c.asset == token.asset)
        signed = tuple_(table.c.payer, table.c.nonce).in_(places)
        query = select(*columns_of(table)).where(of_token, signed)
        rows = (await connection.execute(query)).all()
        booked = await _booked(connection, named, [row.id for row in rows], up_to)
        for row in rows:
            found[row.payer, row.nonce] = Explained(kind, row, booked[row.id])
    return found


def columns_of(table: Table) -> list[Column[Any]]:
    """What an audit reads of a payment or a purchase: not what was signed, which is long."""
    names = ("id", "state", "payer", "pay_to", "amount", "nonce", "transaction", "updated_ms")
    return [table.c[name] for name in names]


async def _booked(
    connection: AsyncConnection, named: Column[Any], ids: Sequence[int], up_to: int
) -> dict[int, Counter[str]]:
    query = select(named, entries.c.debit, entries.c.credit, entries.c.amount).where(
        named.in_(ids), entries.c.id <= up_to
    )
    booked: dict[int, Counter[str]] = defaultdict(Counter)
    for key, debit, credit, amount in await connection.execute(query):
        booked[key][debit] += amount
        booked[key][credit] -= amount
    return booked


async def owners_transfers(
    connection: AsyncConnection, *, up_to: int | None = None
) -> dict[str, Counter[str]]:
    """What the owner moved by hand in each transaction, by account; few, as people do it."""
    query = select(entries).where(entries.c.kind == "owner")
    if up_to is not None:
        query = query.where(entries.c.id <= up_to)
    moved: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in await connection.execute(query):
        moved[entry.transaction][entry.debit] += entry.amount
        moved[entry.transaction][entry.credit] -= entry.amount
    return moved
