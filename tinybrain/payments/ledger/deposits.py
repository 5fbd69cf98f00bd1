"""What becomes of a tab when its money arrives, or turns out never to.

A prepaid tab's deposit is settled when it is opened. A bar tab's is only a signature: at its end
either a second payment settles exactly what was used and the deposit is let go, or the deposit is
settled and the rest refunded.
"""

from typing import Any

from sqlalchemy import Row, select
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


async def lost_of_tab(
    connection: AsyncConnection, row: Row[Any], *, note: str, now: int
) -> PaymentState:
    """A payment of a tab cannot be collected; returns what it becomes."""
    tab = await _tab_of(connection, row)
    state = PaymentState.RELEASED
    if row.id == tab.settlement_id:
        await collect_deposit(connection, tab, now=now)
    else:
        await close(connection, tab, note=note)
        if tab.spent:
            state = PaymentState.DEBT
    await require_change(
        connection,
        payments,
        (payments.c.id == row.id) & (payments.c.state == PaymentState.SETTLING),
        f"Payment {row.id} is not settling.",
        state=state,
        owed=tab.spent,
        note=note,
        updated_ms=now,
    )
    return state


async def collect_deposit(connection: AsyncConnection, tab: Row[Any], *, now: int) -> None:
    """Have a bar tab's deposit settled; only what was used stays."""
    await require_change(
        connection,
        payments,
        (payments.c.id == tab.payment_id) & (payments.c.state == PaymentState.CLAIMED),
        f"The deposit of tab {tab.id} is not claimed.",
        state=PaymentState.SERVED,
        owed=tab.spent,
        updated_ms=now,
        due_ms=now,
    )


async def release_deposit(connection: AsyncConnection, tab: Row[Any], *, now: int) -> None:
    """Let a bar tab's deposit go; one that is settled already is not touched."""
    await change(
        connection,
        payments,
        (payments.c.id == tab.payment_id) & (payments.c.state == PaymentState.CLAIMED),
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


async def _tab_of(connection: AsyncConnection, row: Row[Any]) -> Row[Any]:
    return (await connection.execute(select(tabs).where(tabs.c.id == row.tab_id))).one()
