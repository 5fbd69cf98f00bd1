"""Payments on their way to the chain, whichever direction: taken, settled, tried again, lost.

Every change is conditional on the state it starts from. Whether money moved is never concluded
here; the settler has asked the chain.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.ledger import journal
from tinybrain.payments.ledger.deposits import collected_of_tab, lost_of_tab
from tinybrain.payments.ledger.part import (
    NOTE_CHARS,
    IllegalTransition,
    LedgerPart,
    change,
    require_change,
)
from tinybrain.payments.ledger.refunds import may_be_sent, note_refunded, refund, stop_refund
from tinybrain.payments.ledger.repayments import repay_debts, revive_debts
from tinybrain.payments.records import Collected, PaymentState, Purpose
from tinybrain.payments.schema import answers, payments

SETTLING_LEASE_MS = 150_000  # longer than any facilitator waits for a receipt


class Settling(LedgerPart):
    """The outbox of payments and refunds."""

    async def due_payments(self, *, limit: int = 200) -> Sequence[Row[Any]]:
        """Payments to settle, and settling ones whose outcome must be looked up."""
        async with self._database.read() as connection:
            result = await connection.execute(
                select(payments)
                .where(
                    or_(_ready(), payments.c.state == PaymentState.SETTLING),
                    payments.c.due_ms <= self.now_ms(),
                )
                .order_by(payments.c.due_ms, payments.c.id)
                .limit(limit)
            )
            return result.all()

    async def payment(self, payment_id: int) -> Row[Any] | None:
        """One payment."""
        async with self._database.read() as connection:
            query = select(payments).where(payments.c.id == payment_id)
            return (await connection.execute(query)).first()

    async def take(self, payment_ids: Sequence[int]) -> set[int]:
        """Move payments that are ready to settling; returns which, another worker has the rest."""
        now = self.now_ms()
        wanted = payments.c.id.in_(payment_ids) & _ready()
        async with self._database.write() as connection:
            taken = set((await connection.scalars(select(payments.c.id).where(wanted))).all())
            await connection.execute(
                update(payments)
                .where(payments.c.id.in_(taken))
                .values(
                    state=PaymentState.SETTLING,
                    attempts=payments.c.attempts + 1,
                    updated_ms=now,
                    due_ms=now + SETTLING_LEASE_MS,
                )
            )
        return taken

    async def settled(self, collected: Sequence[Collected]) -> None:
        """Settling → settled, with the transfers that the chain shows.

        Raises:
            IllegalTransition: One is not settling; then none is changed.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            rows = await _arrive(connection, collected, now)
            for row in rows:
                await _follow(connection, row, now)

    async def uncollectable(self, payment_id: int, note: str) -> PaymentState:
        """The chain shows that the money will never come; returns what the payment becomes.

        A debt if something was delivered for it or given back, else released.

        Raises:
            IllegalTransition: It is not settling, or is a refund: that is owed until it is paid.
        """
        now, note = self.now_ms(), note[:NOTE_CHARS]
        async with self._database.write() as connection:
            row = await _require(connection, payment_id, PaymentState.SETTLING)
            owed = await _lost(connection, row, note, now)
            owed += await stop_refund(connection, row, now=now)
            state = PaymentState.DEBT if owed else PaymentState.RELEASED
            await _becomes(connection, row, state, now, owed=owed, note=note)
            return state

    async def withheld(self, payment_id: int) -> None:
        """Debt → released: the answer was not delivered after all, so nothing is owed."""
        now = self.now_ms()
        async with self._database.write() as connection:
            row = await _require(connection, payment_id, PaymentState.DEBT)
            if row.purpose != Purpose.ANSWER:
                raise IllegalTransition(f"Payment {payment_id} is not for one answer.")
            await _becomes(connection, row, PaymentState.RELEASED, now)
            await journal.post(
                connection,
                "reversal",
                debit=journal.REVENUE,
                credit=journal.payer(row.payer),
                amount=row.owed,
                at_ms=now,
                answer_id=row.answer_id,
                payment_id=row.id,
            )

    async def try_again(self, payment_id: int, *, after_s: float, note: str) -> None:
        """Settling → ready, to be worked on again later."""
        now = self.now_ms()
        async with self._database.write() as connection:
            row = await _require(connection, payment_id, PaymentState.SETTLING)
            state = PaymentState.CLAIMED if row.flow == "upfront" else PaymentState.SERVED
            due = now + int(after_s * 1000)
            await _becomes(connection, row, state, now, due_ms=due, note=note[:NOTE_CHARS])

    async def look_again(self, payment_id: int, *, after_s: float, transaction: str) -> None:
        """Stay settling: a transaction is on its way, its outcome is not known yet."""
        now = self.now_ms()
        async with self._database.write() as connection:
            row = await _require(connection, payment_id, PaymentState.SETTLING)
            await _becomes(
                connection,
                row,
                PaymentState.SETTLING,
                now,
                due_ms=now + int(after_s * 1000),
                transaction=transaction or None,
            )

    async def reopen_settling(self) -> None:
        """At the start of the one settlement process: what an earlier one left is due now."""
        async with self._database.write() as connection:
            await change(
                connection,
                payments,
                payments.c.state == PaymentState.SETTLING,
                due_ms=self.now_ms(),
            )

    # --- reorganisations

    async def shallow(self, *, below: int, limit: int = 500) -> Sequence[Row[Any]]:
        """Settled payments at or under a block that nobody looked at again yet."""
        async with self._database.read() as connection:
            result = await connection.execute(
                select(payments)
                .where(
                    payments.c.final.is_(False),
                    payments.c.state.in_([PaymentState.SETTLED, PaymentState.REFUNDED]),
                    or_(payments.c.block <= below, payments.c.block.is_(None)),
                )
                .order_by(payments.c.id)
                .limit(limit)
            )
            return result.all()

    async def final(self, payment_ids: Sequence[int]) -> None:
        """These transfers are deep enough that no reorganisation undoes them.

        One that is not settled any more is left as it is.
        """
        async with self._database.write() as connection:
            arrived = payments.c.state.in_([PaymentState.SETTLED, PaymentState.REFUNDED])
            await change(connection, payments, payments.c.id.in_(payment_ids) & arrived, final=True)

    async def undone(self, payment_id: int) -> None:
        """Settled → settling: a reorganisation took the transfer away."""
        now = self.now_ms()
        async with self._database.write() as connection:
            row = await _require(
                connection, payment_id, PaymentState.SETTLED, PaymentState.REFUNDED
            )
            debit, credit = _accounts(row)
            await journal.post(
                connection,
                "reorganisation",
                debit=credit,
                credit=debit,
                amount=row.amount,
                at_ms=now,
                payment_id=row.id,
                transaction=row.transaction,
            )
            await _becomes(
                connection,
                row,
                PaymentState.SETTLING,
                now,
                due_ms=now,
                transaction=None,
                block=None,
                note="a reorganisation of the chain undid its transfer",
            )


async def _arrive(
    connection: AsyncConnection, collected: Sequence[Collected], now: int
) -> Sequence[Row[Any]]:
    """Settling → settled with the journal's entries, in one statement a transaction, not a payment.

    Returns the payments as they were.
    """
    by_place: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for transfer in collected:
        by_place[transfer.transaction, transfer.block].append(transfer.payment_id)
    settled: list[Row[Any]] = []
    for (transaction, block), ids in by_place.items():
        settling = payments.c.id.in_(ids) & (payments.c.state == PaymentState.SETTLING)
        rows = (await connection.execute(select(payments).where(settling))).all()
        if len(rows) != len(ids):
            raise IllegalTransition(f"Of the payments {ids} not all are {PaymentState.SETTLING}.")
        await change(
            connection,
            payments,
            settling,
            state=PaymentState.SETTLED,
            updated_ms=now,
            transaction=transaction,
            block=block,
            note=None,
        )
        await journal.post_all(connection, [_collection(row, transaction, now) for row in rows])
        settled += rows
    return settled


def _collection(row: Row[Any], transaction: str, now: int) -> dict[str, Any]:
    debit, credit = _accounts(row)
    return {
        "kind": "refund" if row.purpose == Purpose.REFUND else "collection",
        "debit": debit,
        "credit": credit,
        "amount": row.amount,
        "at_ms": now,
        "answer_id": row.answer_id,
        "payment_id": row.id,
        "tab_id": row.tab_id,
        "transaction": transaction,
    }


async def _follow(connection: AsyncConnection, row: Row[Any], now: int) -> None:
    """Do what a payment's arrival entails for what it paid for."""
    match row.purpose:
        case Purpose.ANSWER if row.flow == "authorization":
            return
        case Purpose.ANSWER:
            await _refund_failed(connection, row, now)
        case Purpose.TAB:
            await collected_of_tab(connection, row, now=now)
        case Purpose.DEBT:
            await repay_debts(connection, row, now=now)
        case Purpose.REFUND if row.tab_id is not None:
            await collected_of_tab(connection, row, now=now)
    await note_refunded(connection, row.refund_of or row.id, now=now)


async def _lost(connection: AsyncConnection, row: Row[Any], note: str, now: int) -> int:
    """Undo what was built on a payment; returns what was delivered for it."""
    match row.purpose:
        case Purpose.TAB:
            return await lost_of_tab(connection, row, note=note, now=now)
        case Purpose.DEBT:
            await revive_debts(connection, row, now=now)
        case Purpose.REFUND:
            raise IllegalTransition(f"Payment {row.id} is a refund: it is owed until it is paid.")
    return await journal.sold(connection, row.id)


async def _refund_failed(connection: AsyncConnection, row: Row[Any], now: int) -> None:
    """The answer ended without being charged before its payment, made upfront, was settled."""
    outcome = await connection.scalar(
        select(answers.c.outcome).where(answers.c.id == row.answer_id)
    )
    if outcome != "running" and not await journal.sold(connection, row.id):
        await refund(connection, row, amount=row.amount, now=now)


def _accounts(row: Row[Any]) -> tuple[str, str]:
    """What a transfer debits and credits."""
    if row.purpose == Purpose.REFUND:
        return journal.payer(row.pay_to), journal.wallet(row.payer)
    return journal.wallet(row.pay_to), journal.payer(row.payer)


def _ready() -> ColumnElement[bool]:
    return or_(
        and_(payments.c.state == PaymentState.SERVED, may_be_sent()),
        and_(payments.c.state == PaymentState.CLAIMED, payments.c.flow == "upfront"),
    )


async def _require(connection: AsyncConnection, payment_id: int, *states: PaymentState) -> Row[Any]:
    query = select(payments).where(payments.c.id == payment_id, payments.c.state.in_(states))
    row = (await connection.execute(query)).first()
    if row is None:
        raise IllegalTransition(f"Payment {payment_id} is not {' or '.join(states)}.")
    return row


async def _becomes(
    connection: AsyncConnection, row: Row[Any], state: PaymentState, now: int, **values: object
) -> None:
    await require_change(
        connection,
        payments,
        (payments.c.id == row.id) & (payments.c.state == row.state),
        f"Payment {row.id} is no longer {row.state}.",
        state=state,
        updated_ms=now,
        **values,
    )
