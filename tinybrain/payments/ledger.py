"""The only writer of money states: answers, the payments for them, and purchases upstream.

A payment is *claimed → served → settling → settled*; `released` when nothing was delivered,
`debt` when something was and the money can no longer be collected. A purchase is
*reserved → paid* or *released*. Every transition is a conditional update inside one write
transaction; one that does not find its row in the expected state raises IllegalTransition.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.errors import BudgetExceeded, PaymentConflict, TinyBrainError, TooManyUnsettled
from tinybrain.payments.database import Database
from tinybrain.payments.records import (
    UNSETTLED,
    AnswerRecord,
    Charge,
    NewAnswer,
    NewPayment,
    NewPurchase,
    PaymentState,
    PurchaseState,
)
from tinybrain.payments.schema import answers, payments, purchases
from tinybrain.usdc import Usdc, format_usdc

DAY_MS = 86_400_000
SETTLING_LEASE_MS = 150_000  # longer than the facilitator waits for a receipt


class IllegalTransition(TinyBrainError):
    """A row was not in the state that the transition starts from."""

    default_code = "illegal_transition"


class Ledger:
    """The money's record.

    `clock` tells Unix seconds; `most_unsettled` bounds a payer's answers that are not paid for yet.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        most_unsettled: int = 8,
    ) -> None:
        self._database = database
        self._clock = clock
        self._most_unsettled = most_unsettled

    async def ping(self) -> None:
        """Prove that the ledger can be read.

        Raises:
            LedgerUnavailable: It cannot.
        """
        async with self._database.read() as connection:
            await connection.execute(select(answers.c.id).limit(1))

    def now_ms(self) -> int:
        """Unix milliseconds by the ledger's clock."""
        return int(self._clock() * 1000)

    # --- answers and the claim that pays for them

    async def begin(self, answer: NewAnswer, payment: NewPayment | None) -> None:
        """Record an answer before any work, and claim its payment in the same transaction.

        Raises:
            PaymentConflict: The authorization is claimed, or already bought an answer.
            TooManyUnsettled: The payer has as many answers not paid for yet as are allowed.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            await connection.execute(
                insert(answers).values(
                    **asdict(answer), created_ms=now, outcome="running", fallback=False
                )
            )
            if payment is not None:
                await _claim(connection, payment, answer.id, now)
                await _bound_exposure(connection, payment.payer, self._most_unsettled)

    async def require_unused(self, payment: NewPayment) -> None:
        """Refuse an authorization seen before, so that it is not verified again.

        Raises:
            PaymentConflict: It is claimed, or already bought an answer.
        """
        async with self._database.read() as connection:
            row = (await connection.execute(select(payments).where(_same(payment)))).first()
        if row is not None and row.state != PaymentState.RELEASED:
            raise _conflict(row, payment)

    async def finish(self, answer_id: str, record: AnswerRecord, *, charge: Charge) -> None:
        """Record how an answer ended; its payment becomes `served` or `released`.

        Called before the last byte is sent, so that nothing is delivered without a record.

        Raises:
            IllegalTransition: The answer has ended already, for example because it overran its
                time and the payment was released. Then nothing more may be delivered.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(answers)
                .where(answers.c.id == answer_id, answers.c.outcome == "running")
                .values(**asdict(record))
            )
            if changed.rowcount != 1:
                raise IllegalTransition(f"Answer {answer_id} has ended already.")
            charged = charge is Charge.YES or (
                charge is Charge.IF_BOUGHT and await _was_bought(connection, answer_id)
            )
            state = PaymentState.SERVED if charged else PaymentState.RELEASED
            await connection.execute(
                update(payments)
                .where(payments.c.answer_id == answer_id, payments.c.state == PaymentState.CLAIMED)
                .values(state=state, updated_ms=now, due_ms=now, note=record.error)
            )

    async def release_abandoned(self, *, older_than_s: float) -> int:
        """End answers that nobody finished (their process died); returns how many."""
        now = self.now_ms()
        note = "abandoned: the process that worked on it ended"
        running = (answers.c.outcome == "running") & (
            answers.c.created_ms < now - int(older_than_s * 1000)
        )
        async with self._database.read() as connection:
            ids = (await connection.scalars(select(answers.c.id).where(running))).all()
        if not ids:
            return 0
        async with self._database.write() as connection:
            ended = await connection.execute(
                update(answers)
                .where(running, answers.c.id.in_(ids))
                .values(outcome="failed", error=note)
            )
            await connection.execute(
                update(payments)
                .where(
                    payments.c.state == PaymentState.CLAIMED,
                    payments.c.answer_id.in_(
                        select(answers.c.id).where(
                            answers.c.id.in_(ids), answers.c.outcome == "failed"
                        )
                    ),
                )
                .values(state=PaymentState.RELEASED, updated_ms=now, note=note)
            )
        return ended.rowcount

    # --- settlement of served payments

    async def due_payments(self, *, limit: int = 100) -> Sequence[Row[Any]]:
        """Served payments to settle, and settling ones whose outcome must be looked up."""
        async with self._database.read() as connection:
            result = await connection.execute(
                select(payments)
                .where(
                    payments.c.state.in_([PaymentState.SERVED, PaymentState.SETTLING]),
                    payments.c.due_ms <= self.now_ms(),
                )
                .order_by(payments.c.due_ms, payments.c.id)
                .limit(limit)
            )
            return result.all()

    async def payment_of(self, answer_id: str) -> Row[Any] | None:
        """The payment that bought an answer, if one did."""
        async with self._database.read() as connection:
            query = select(payments).where(payments.c.answer_id == answer_id)
            return (await connection.execute(query)).first()

    async def take(self, payment_id: int) -> bool:
        """Move served → settling; False if another worker was first."""
        now = self.now_ms()
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(payments)
                .where(payments.c.id == payment_id, payments.c.state == PaymentState.SERVED)
                .values(
                    state=PaymentState.SETTLING,
                    attempts=payments.c.attempts + 1,
                    updated_ms=now,
                    due_ms=now + SETTLING_LEASE_MS,
                )
            )
        return changed.rowcount == 1

    async def settled(self, payment_id: int, transaction: str) -> None:
        """Settling → settled, with the hash of the transfer."""
        await self._settling_becomes(
            payment_id, PaymentState.SETTLED, transaction=transaction, note=None
        )

    async def owed(self, payment_id: int, note: str) -> None:
        """Settling → debt: the answer was delivered and the money cannot be collected."""
        await self._settling_becomes(payment_id, PaymentState.DEBT, note=note[:300])

    async def withheld(self, payment_id: int) -> None:
        """Debt → released: the answer was not delivered after all, so nothing is owed."""
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(payments)
                .where(payments.c.id == payment_id, payments.c.state == PaymentState.DEBT)
                .values(state=PaymentState.RELEASED, updated_ms=self.now_ms())
            )
            if changed.rowcount != 1:
                raise IllegalTransition(f"Payment {payment_id} is not a debt.")

    async def try_again(self, payment_id: int, *, after_s: float, note: str) -> None:
        """Settling → served, to be worked on again later."""
        due = self.now_ms() + int(after_s * 1000)
        await self._settling_becomes(payment_id, PaymentState.SERVED, due_ms=due, note=note[:300])

    async def look_again(self, payment_id: int, *, after_s: float, transaction: str) -> None:
        """Stay settling: a transaction is on its way, its outcome is not known yet."""
        due = self.now_ms() + int(after_s * 1000)
        await self._settling_becomes(
            payment_id, PaymentState.SETTLING, due_ms=due, transaction=transaction or None
        )

    async def reopen_settling(self) -> None:
        """At the start of the one settlement process: what an earlier one left is due now."""
        async with self._database.write() as connection:
            await connection.execute(
                update(payments)
                .where(payments.c.state == PaymentState.SETTLING)
                .values(due_ms=self.now_ms())
            )

    async def _settling_becomes(
        self, payment_id: int, state: PaymentState, **values: object
    ) -> None:
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(payments)
                .where(payments.c.id == payment_id, payments.c.state == PaymentState.SETTLING)
                .values(state=state, updated_ms=self.now_ms(), **values)
            )
            if changed.rowcount != 1:
                raise IllegalTransition(f"Payment {payment_id} is not settling.")

    # --- purchases upstream

    async def reserve(self, purchase: NewPurchase, *, day_cap: Usdc) -> int:
        """Reserve a purchase against the cap of the last 24 hours; returns its id.

        The sum is read under the write lock, so any number of replicas asking at once
        cannot overspend.

        Raises:
            BudgetExceeded: The cap leaves no room for it.
        """
        now = self.now_ms()
        async with self._database.write() as connection:
            spent = await connection.scalar(
                select(func.coalesce(func.sum(purchases.c.amount), 0)).where(
                    purchases.c.state != PurchaseState.RELEASED,
                    purchases.c.created_ms > now - DAY_MS,
                )
            )
            if (spent or 0) + purchase.amount > day_cap:
                raise BudgetExceeded(
                    f"Buying this answer for {format_usdc(purchase.amount)} would exceed the "
                    f"{format_usdc(day_cap)} a day that TINYBRAIN_MAX_COST_PER_DAY allows."
                )
            result = await connection.execute(
                insert(purchases).values(
                    **asdict(purchase),
                    state=PurchaseState.RESERVED,
                    created_ms=now,
                    updated_ms=now,
                )
            )
            purchase_id: int = (result.inserted_primary_key or [0])[0]
        return purchase_id

    async def signed(self, purchase_id: int, *, nonce: str, valid_before: int) -> None:
        """Note the authorization of a reserved purchase before it is sent."""
        await self._reserved_becomes(
            purchase_id,
            PurchaseState.RESERVED,
            nonce=nonce.lower(),
            valid_before=valid_before,
        )

    async def paid(self, purchase_id: int, *, transaction: str | None) -> None:
        """Reserved → paid."""
        await self._reserved_becomes(purchase_id, PurchaseState.PAID, transaction=transaction)

    async def release_purchase(self, purchase_id: int, *, note: str) -> None:
        """Reserved → released: no money moved, and none can any more."""
        await self._reserved_becomes(purchase_id, PurchaseState.RELEASED, note=note[:300])

    async def unresolved_purchases(self, *, expired_for_s: float) -> Sequence[Row[Any]]:
        """Signed but unconfirmed purchases whose authorization expired that long ago."""
        async with self._database.read() as connection:
            result = await connection.execute(
                select(purchases).where(
                    purchases.c.state == PurchaseState.RESERVED,
                    purchases.c.valid_before < self._clock() - expired_for_s,
                )
            )
            return result.all()

    async def release_unsigned_purchases(self, *, older_than_s: float) -> None:
        """Release reservations whose process died before it signed anything."""
        unsigned = (
            (purchases.c.state == PurchaseState.RESERVED)
            & purchases.c.nonce.is_(None)
            & (purchases.c.created_ms < self.now_ms() - int(older_than_s * 1000))
        )
        async with self._database.read() as connection:
            if (await connection.execute(select(purchases.c.id).where(unsigned))).first() is None:
                return
        async with self._database.write() as connection:
            await connection.execute(
                update(purchases)
                .where(unsigned)
                .values(
                    state=PurchaseState.RELEASED,
                    updated_ms=self.now_ms(),
                    note="abandoned before it was signed",
                )
            )

    async def _reserved_becomes(
        self, purchase_id: int, state: PurchaseState, **values: object
    ) -> None:
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(purchases)
                .where(purchases.c.id == purchase_id, purchases.c.state == PurchaseState.RESERVED)
                .values(state=state, updated_ms=self.now_ms(), **values)
            )
            if changed.rowcount != 1:
                raise IllegalTransition(f"Purchase {purchase_id} is not reserved.")


def _same(payment: NewPayment) -> Any:
    return (
        (payments.c.network == payment.network)
        & (payments.c.asset == payment.asset)
        & (payments.c.payer == payment.payer)
        & (payments.c.nonce == payment.nonce)
    )


async def _claim(
    connection: AsyncConnection, payment: NewPayment, answer_id: str, now: int
) -> None:
    row = (await connection.execute(select(payments).where(_same(payment)))).first()
    fresh = {
        "answer_id": answer_id,
        "state": PaymentState.CLAIMED,
        "note": None,
        "attempts": 0,
        "claimed_ms": now,
        "updated_ms": now,
        "due_ms": now,
    }
    if row is None:
        await connection.execute(insert(payments).values(**asdict(payment), **fresh))
    elif row.state == PaymentState.RELEASED:
        # Its earlier answer failed and was not charged: the authorization is still good.
        await connection.execute(
            update(payments).where(payments.c.id == row.id).values(**asdict(payment), **fresh)
        )
    else:
        raise _conflict(row, payment)


async def _bound_exposure(connection: AsyncConnection, payer: str, most: int) -> None:
    """A balance is verified for one payment at a time; this bounds what several can owe."""
    unsettled = select(func.count()).where(
        payments.c.payer == payer, payments.c.state.in_(UNSETTLED)
    )
    if (await connection.scalar(unsettled) or 0) > most:
        raise TooManyUnsettled(
            f"This wallet has {most} answers that are not paid for yet: under way, being settled, "
            "or owed. Wait until they are settled, or pay from another wallet."
        )


async def _was_bought(connection: AsyncConnection, answer_id: str) -> bool:
    bought = select(purchases.c.id).where(
        purchases.c.answer_id == answer_id, purchases.c.state != PurchaseState.RELEASED
    )
    return (await connection.execute(bought)).first() is not None


def _conflict(row: Row[Any], payment: NewPayment) -> PaymentConflict:
    message = "This payment authorization is already used. Sign a new one for a new answer."
    # Payer and nonce are public once on the chain; only the signature shows who asks.
    if row.payload == payment.payload:
        message += f" The receipt of what it bought is at /v1/receipts/{row.answer_id}."
    return PaymentConflict(message)
