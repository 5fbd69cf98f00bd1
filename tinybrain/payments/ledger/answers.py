"""Answers: begun with what pays for them, ended with a record before their last byte is sent."""

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.config import Flow
from tinybrain.payments.ledger import journal
from tinybrain.payments.ledger.charges import end_charge, hold
from tinybrain.payments.ledger.claims import Claims, claim
from tinybrain.payments.ledger.part import IllegalTransition, change, require_change, values_of
from tinybrain.payments.ledger.refunds import refund
from tinybrain.payments.records import (
    AnswerRecord,
    Charge,
    NewAnswer,
    NewPayment,
    PaymentState,
    PurchaseState,
    TabCharge,
)
from tinybrain.payments.schema import answers, payments, purchases, replies

INSERT = insert(answers)
ABANDONED = "abandoned: the process that worked on it ended"


class Answers(Claims):
    """The life of an answer."""

    async def begin(
        self, answer: NewAnswer, payment: NewPayment | None = None, tab: TabCharge | None = None
    ) -> Flow:
        """Record an answer before any work, and claim what pays for it in the same transaction.

        Returns:
            "upfront" if its payment must be settled before the work, else "authorization".

        Raises:
            PaymentConflict, DebtOwed, TooManyUnsettled: The payment may not buy it.
            Unauthorized, PaymentRequired, PaymentConflict: The tab may not pay for it.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            values = values_of(answer) | {
                "created_ms": now,
                "outcome": "running",
                "fallback": False,
            }
            await connection.execute(INSERT, values)
            if tab is not None:
                await hold(connection, tab, answer, now=now)
            if payment is not None:
                _, flow = await claim(
                    connection, payment, now=now, limits=self._limits, answer_id=answer.id
                )
                return flow
        return "authorization"

    async def finish(
        self,
        answer_id: str,
        record: AnswerRecord,
        *,
        charge: Charge,
        reply: dict[str, Any] | None = None,
    ) -> bool:
        """Record how an answer ended, with the `reply` that a repeated request is answered with.

        Called before the last byte is sent, so that nothing is delivered without a record.

        Returns:
            Whether it is charged.

        Raises:
            IllegalTransition: The answer has ended already, for example because it overran its
                time and the payment was released. Then nothing more may be delivered.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            await require_change(
                connection,
                answers,
                (answers.c.id == answer_id) & (answers.c.outcome == "running"),
                f"Answer {answer_id} has ended already.",
                **values_of(record),
            )
            charged = charge is Charge.YES
            await _end_payment(connection, answer_id, charged=charged, note=record.error, now=now)
            await end_charge(connection, answer_id, captured=charged, now=now)
            if reply is not None and charged:
                await connection.execute(
                    insert(replies).values(id=answer_id, body=reply, created_ms=now)
                )
        return charged

    async def release_abandoned(self, *, older_than_s: float) -> int:
        """End answers that nobody finished (their process died); returns how many."""
        now = self.now_ms()
        running = (answers.c.outcome == "running") & (
            answers.c.created_ms < now - int(older_than_s * 1000)
        )
        # The write lock is taken only if there is something to do.
        async with self._database.read() as connection:
            some = (await connection.execute(select(answers.c.id).where(running).limit(1))).first()
        if some is None:
            return 0
        async with self._database.write() as connection:
            ids = (await connection.scalars(select(answers.c.id).where(running))).all()
            for answer_id in ids:
                await connection.execute(
                    update(answers)
                    .where(answers.c.id == answer_id)
                    .values(outcome="failed", error=ABANDONED)
                )
                await _end_payment(connection, answer_id, charged=False, note=ABANDONED, now=now)
                await end_charge(connection, answer_id, captured=False, now=now)
        return len(ids)

    async def payment_of(self, answer_id: str) -> Row[Any] | None:
        """The payment that bought an answer, if one did."""
        async with self._database.read() as connection:
            query = select(payments).where(payments.c.answer_id == answer_id)
            return (await connection.execute(query)).first()

    async def was_bought(self, answer_id: str) -> bool:
        """Whether money is spent, or reserved, on an answer upstream."""
        bought = select(purchases.c.id).where(
            purchases.c.answer_id == answer_id, purchases.c.state != PurchaseState.RELEASED
        )
        async with self._database.read() as connection:
            return (await connection.execute(bought)).first() is not None

    async def outcome_of(self, answer_id: str) -> str | None:
        """How an answer ended, "running", or None if there is none."""
        async with self._database.read() as connection:
            query = select(answers.c.outcome).where(answers.c.id == answer_id)
            outcome: str | None = await connection.scalar(query)
            return outcome

    async def forget_replies(self, *, older_than_s: float) -> int:
        """Delete what was said in answers so old; returns how many."""
        old = replies.c.created_ms < self.now_ms() - int(older_than_s * 1000)
        async with self._database.read() as connection:
            if (await connection.execute(select(replies.c.id).where(old).limit(1))).first() is None:
                return 0
        async with self._database.write() as connection:
            return (await connection.execute(replies.delete().where(old))).rowcount


async def _end_payment(
    connection: AsyncConnection, answer_id: str, *, charged: bool, note: str | None, now: int
) -> None:
    row = (
        await connection.execute(select(payments).where(payments.c.answer_id == answer_id))
    ).first()
    if row is None:
        return
    if charged:
        if row.flow == "authorization":
            await _becomes(connection, row, PaymentState.SERVED, now=now, due_ms=now)
        elif row.state != PaymentState.SETTLED:
            raise IllegalTransition(f"Payment {row.id} is made upfront and not settled.")
        await journal.post(
            connection,
            "sale",
            debit=journal.payer(row.payer),
            credit=journal.REVENUE,
            amount=row.amount,
            at_ms=now,
            answer_id=answer_id,
            payment_id=row.id,
        )
    elif row.state == PaymentState.SETTLED:
        await refund(connection, row, amount=row.amount, now=now)
    else:
        # One that was tried to be settled (upfront) may still be: it is refunded once it is.
        await change(
            connection,
            payments,
            _in_state(row, PaymentState.CLAIMED) & (payments.c.attempts == 0),
            state=PaymentState.RELEASED,
            updated_ms=now,
            note=note,
        )


async def _becomes(
    connection: AsyncConnection, row: Row[Any], state: PaymentState, *, now: int, **values: object
) -> None:
    await require_change(
        connection,
        payments,
        _in_state(row, PaymentState.CLAIMED),
        f"Payment {row.id} is not claimed.",
        state=state,
        updated_ms=now,
        **values,
    )


def _in_state(row: Row[Any], state: PaymentState) -> ColumnElement[bool]:
    return and_(payments.c.id == row.id, payments.c.state == state)
