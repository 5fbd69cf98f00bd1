"""What becomes of a tab when its money arrives, or turns out never to.

A prepaid tab's deposit is settled when it is opened. A bar tab's is only a signature: at its end
either a second payment settles exactly what was used and the deposit is let go, or the deposit is
settled and the rest refunded.
"""

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.ledger.part import change, require_change
from tinybrain.payments.ledger.refunds import refund
from tinybrain.payments.records import PaymentState, Purpose, TabState
from tinybrain.payments.schema import payments, tabs


async def collected_of_tab(connection: AsyncConnection, row: Row[Any], *, now: int) -> None:
    """A payment or refund of a tab has settled."""
    tab = await _tab_of(connection, row)
    if row.purpose == Purpose.REFUND or row.id == tab.settlement_id:
        await release_deposit(connection, tab, now=now)
        await close(connection, tab)
    elif tab.kind == "prepaid":
        await change(
            connection,
            tabs,
            (tabs.c.id == tab.id) & (tabs.c.state == TabState.OPENING),
            state=TabState.OPEN,
            used_ms=now,
        )
    else:
        await refund(connection, row, amount=row.amount - tab.spent, now=now)
        if row.amount == tab.spent:
            await close(connection, tab)


async def lost_of_tab(connection: AsyncConnection, row: Row[Any], *, note: str, now: int) -> int:
    """A payment of a tab cannot be collected; returns what is owed for it."""
    tab = await _tab_of(connection, row)
    if row.id == tab.settlement_id and await collect_deposit(connection, tab, now=now):
        return 0
    await close(connection, tab, note=note)
    return int(tab.spent)


async def owe_more(connection: AsyncConnection, tab_id: str, *, amount: int, now: int) -> None:
    """An answer ended after its tab's deposit was lost: it is owed for."""
    in_debt = payments.c.state == PaymentState.DEBT
    deposit = select(tabs.c.payment_id).where(tabs.c.id == tab_id).scalar_subquery()
    await require_change(
        connection,
        payments,
        payments.c.id == deposit,
        f"Tab {tab_id} has no deposit.",
        state=PaymentState.DEBT,
        owed=case((in_debt, payments.c.owed), else_=0) + amount,
        updated_ms=now,
    )


async def collect_deposit(connection: AsyncConnection, tab: Row[Any], *, now: int) -> bool:
    """Have a bar tab's deposit settled, only what was used stays; returns whether it still can be.

    One that was let go is taken back, if nothing else was paid with its authorization since.
    """
    changed = await change(
        connection,
        payments,
        _deposit_of(tab) & payments.c.state.in_([PaymentState.CLAIMED, PaymentState.RELEASED]),
        state=PaymentState.SERVED,
        owed=tab.spent,
        updated_ms=now,
        due_ms=now,
    )
    return changed == 1


async def release_deposit(connection: AsyncConnection, tab: Row[Any], *, now: int) -> None:
    """Let a bar tab's deposit go; one that is settled already is not touched."""
    await change(
        connection,
        payments,
        _deposit_of(tab) & (payments.c.state == PaymentState.CLAIMED),
        state=PaymentState.RELEASED,
        updated_ms=now,
    )


async def close(connection: AsyncConnection, tab: Row[Any], *, note: str | None = None) -> None:
    """Closed for good: what was not spent is refunded, or was never collected."""
    await change(
        connection,
        tabs,
        (tabs.c.id == tab.id) & (tabs.c.state != TabState.CLOSED),
        state=TabState.CLOSED,
        refunded=tabs.c.refunded + tabs.c.balance,
        balance=0,
        note=note,
    )


def _deposit_of(tab: Row[Any]) -> ColumnElement[bool]:
    return and_(payments.c.id == tab.payment_id, payments.c.tab_id == tab.id)


async def _tab_of(connection: AsyncConnection, row: Row[Any]) -> Row[Any]:
    return (await connection.execute(select(tabs).where(tabs.c.id == row.tab_id))).one()
