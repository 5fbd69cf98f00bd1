"""The journal: each movement of money leaves one account and enters another.

Accounts: `wallet:<address>` is what we hold there on the chain; `payer:<address>` is what a payer
owes us, or below zero what we owe him (deposits, refunds not yet sent); `revenue`, `cost`, and
`owner`, who moves money by hand. Debits add to a wallet or to what a payer owes, credits take
away; the sum over all accounts is always zero. The sum of a wallet's entries is what its balance
on the chain has changed by since the book was opened (`tinybrain audit`).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.schema import entries

REVENUE = "revenue"
COST = "cost"
OWNER = "owner"


def wallet(address: str) -> str:
    """The account of an address of ours."""
    return f"wallet:{address}"


def payer(address: str) -> str:
    """The account of a payer."""
    return f"payer:{address}"


async def post(
    connection: AsyncConnection,
    kind: str,
    *,
    debit: str,
    credit: str,
    amount: int,
    at_ms: int,
    answer_id: str | None = None,
    payment_id: int | None = None,
    purchase_id: int | None = None,
    tab_id: str | None = None,
    transaction: str | None = None,
) -> None:
    """Write one movement; nothing if nothing moves."""
    if amount == 0:
        return
    await connection.execute(
        insert(entries).values(
            at_ms=at_ms,
            kind=kind,
            debit=debit,
            credit=credit,
            amount=amount,
            answer_id=answer_id,
            payment_id=payment_id,
            purchase_id=purchase_id,
            tab_id=tab_id,
            transaction=transaction,
        )
    )


async def post_all(connection: AsyncConnection, movements: Sequence[dict[str, Any]]) -> None:
    """Write movements that name the same columns of `entries`; none where nothing moves."""
    if moving := [movement for movement in movements if movement["amount"]]:
        await connection.execute(insert(entries), moving)


async def sold(connection: AsyncConnection, payment_id: int) -> int:
    """What was delivered for a payment and not reversed."""
    signed = case((entries.c.kind == "sale", entries.c.amount), else_=-entries.c.amount)
    query = select(func.sum(signed)).where(
        entries.c.payment_id == payment_id, entries.c.kind.in_(["sale", "reversal"])
    )
    return int(await connection.scalar(query) or 0)
