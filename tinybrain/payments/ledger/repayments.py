"""A payment for debts: the oldest are paid first, what is left over goes back."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Row, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.ledger import journal
from tinybrain.payments.ledger.claims import claim
from tinybrain.payments.ledger.part import LedgerPart, change
from tinybrain.payments.ledger.refunds import refund
from tinybrain.payments.records import NewPayment, PaymentState, Purpose
from tinybrain.payments.schema import payments


class Repayments(LedgerPart):
    """What payers pay of their debts."""

    async def repay(self, payment: NewPayment, *, debtor: str) -> int:
        """Claim a payment for a payer's debts, to be settled next; returns its id.

        Raises:
            PaymentConflict: The authorization is used already.
        """
        payment = replace(payment, purpose=Purpose.DEBT, flow="upfront")
        async with self._database.write() as connection:
            payment_id, _ = await claim(
                connection, payment, now=self.now_ms(), limits=None, debtor=debtor
            )
            return payment_id


async def repay_debts(connection: AsyncConnection, row: Row[Any], *, now: int) -> None:
    """Pay the debts of `row.debtor` with a settled payment; anyone may pay them."""
    used = or_(payments.c.repaid_by == row.id, payments.c.refund_of == row.id)
    if (await connection.execute(select(payments.c.id).where(used))).first() is not None:
        return  # settled again after a reorganisation
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
            repaid_by=row.id,
            updated_ms=now,
        )
    await _post(
        connection, row, debit=row.payer, credit=row.debtor, amount=row.amount - left, now=now
    )
    await refund(connection, row, amount=left, now=now)


async def revive_debts(connection: AsyncConnection, row: Row[Any], *, now: int) -> None:
    """A reorganisation took a payment for debts away for good: they are owed again."""
    repaid = payments.c.repaid_by == row.id
    amount = int(await connection.scalar(select(func.sum(payments.c.owed)).where(repaid)) or 0)
    await change(
        connection,
        payments,
        repaid,
        state=PaymentState.DEBT,
        repaid_by=None,
        updated_ms=now,
    )
    await _post(connection, row, debit=row.debtor, credit=row.payer, amount=amount, now=now)


async def _post(
    connection: AsyncConnection, row: Row[Any], *, debit: str, credit: str, amount: int, now: int
) -> None:
    if debit != credit:
        await journal.post(
            connection,
            "repayment",
            debit=journal.payer(debit),
            credit=journal.payer(credit),
            amount=amount,
            at_ms=now,
            payment_id=row.id,
        )
