"""A payment for debts: the oldest are paid first, what is left over goes back."""

from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.ledger import journal
from tinybrain.payments.ledger.part import change
from tinybrain.payments.ledger.refunds import refund
from tinybrain.payments.records import PaymentState
from tinybrain.payments.schema import payments


async def repay_debts(connection: AsyncConnection, row: Row[Any], *, now: int) -> None:
    """Pay the debts of `row.debtor` with a settled payment; anyone may pay them."""
    owed = select(payments).where(
        payments.c.payer == row.debtor, payments.c.state == PaymentState.DEBT
    )
    left = row.amount
    for debt in (await connection.execute(owed.order_by(payments.c.id))).all():
        if debt.owed > left:
            break
        left -= debt.owed
        await change(
            connection,
            payments,
            payments.c.id == debt.id,
            state=PaymentState.REPAID,
            updated_ms=now,
            note=f"repaid by payment {row.id}",
        )
    if row.debtor != row.payer:
        await journal.post(
            connection,
            "repayment",
            debit=journal.payer(row.payer),
            credit=journal.payer(row.debtor),
            amount=row.amount - left,
            at_ms=now,
            payment_id=row.id,
        )
    await refund(connection, row, amount=left, now=now)
