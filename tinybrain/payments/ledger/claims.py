"""Claiming a payment: once for ever, within what its payer may owe."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.config import Flow
from tinybrain.errors import DebtOwed, PaymentConflict, TooManyUnsettled
from tinybrain.payments.ledger.part import LedgerPart
from tinybrain.payments.records import (
    UNSETTLED,
    Limits,
    NewPayment,
    PaymentState,
    Purpose,
    Recorded,
)
from tinybrain.payments.schema import answers, payments, replies
from tinybrain.usdc import format_usdc


class Claims(LedgerPart):
    """Looks up earlier uses of a payment."""

    async def recorded(self, payment: NewPayment) -> Recorded | None:
        """The answer this payment bought before; None if it may buy one now.

        The same payment is the same authorization, or the same payer with the same
        payment-identifier. Its signature must have been checked.

        Raises:
            PaymentConflict: It was used for another request, or for something else.
        """
        query = (
            select(payments, answers.c.outcome, replies.c.body)
            .outerjoin(answers, answers.c.id == payments.c.answer_id)
            .outerjoin(replies, replies.c.id == payments.c.answer_id)
            .where(_same(payment), payments.c.state != PaymentState.RELEASED)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        if row.purpose != payment.purpose or row.request_hash != payment.request_hash:
            raise _conflict("is already used for another request")
        if row.answer_id is None:
            raise _conflict("is already used")
        return Recorded(row.answer_id, row.outcome, row.body)

    async def require_unclaimed(self, payment: NewPayment) -> Row[Any] | None:
        """The row of an earlier claim for the same request, if there is one.

        Raises:
            PaymentConflict: It was used for another request.
        """
        query = select(payments).where(_same(payment), payments.c.state != PaymentState.RELEASED)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is not None and (
            row.purpose != payment.purpose or row.request_hash != payment.request_hash
        ):
            raise _conflict("is already used for another request")
        return row

    async def debts(self, payer: str) -> list[Row[Any]]:
        """What a payer owes for: payments whose answers were delivered and not paid."""
        async with self._database.read() as connection:
            query = select(payments).where(_debt_of(payer)).order_by(payments.c.id)
            return list((await connection.execute(query)).all())


async def claim(
    connection: AsyncConnection,
    payment: NewPayment,
    *,
    now: int,
    limits: Limits,
    **subject: object,
) -> tuple[int, Flow]:
    """Insert a payment; `subject` are the columns that say what it pays for.

    Returns:
        The row's id, and the flow: upfront too for a payer who is not trusted yet.

    Raises:
        PaymentConflict: It is claimed, or already bought something.
        DebtOwed: The payer owes for earlier answers.
        TooManyUnsettled: The payer, or all payers together, may not owe more.
    """
    if payment.purpose is not Purpose.DEBT:
        await _require_no_debt(connection, payment.payer)
    flow = payment.flow
    if payment.purpose is Purpose.ANSWER and flow == "authorization":
        flow = await _flow_for(connection, payment.payer, limits)
    values = {
        **asdict(payment),
        "flow": flow,
        "owed": payment.amount,
        "state": PaymentState.CLAIMED,
        "note": None,
        "transaction": None,
        "block": None,
        "final": False,
        "attempts": 0,
        "claimed_ms": now,
        "updated_ms": now,
        "due_ms": now,
        **subject,
    }
    payment_id = await _insert(connection, payment, values)
    if flow == "authorization":
        await _bound_exposure(connection, payment, limits)
    return payment_id, flow


async def _insert(
    connection: AsyncConnection, payment: NewPayment, values: dict[str, object]
) -> int:
    found = (await connection.execute(select(payments).where(_same(payment)))).all()
    if any(row.state != PaymentState.RELEASED for row in found):
        raise _conflict("is already used")
    for row in found:
        # Its earlier answer failed and was not charged: authorization and identifier are still
        # good. A released row of another authorization only gives up the identifier.
        if row.nonce == payment.nonce:
            await connection.execute(
                update(payments).where(payments.c.id == row.id).values(**values)
            )
        else:
            await connection.execute(
                update(payments).where(payments.c.id == row.id).values(identifier=None)
            )
    reused = [row.id for row in found if row.nonce == payment.nonce]
    if reused:
        return int(reused[0])
    result = await connection.execute(insert(payments).values(**values))
    return int((result.inserted_primary_key or [0])[0])


async def _require_no_debt(connection: AsyncConnection, payer: str) -> None:
    owed = await connection.scalar(select(func.sum(payments.c.owed)).where(_debt_of(payer)))
    if owed:
        raise DebtOwed(
            f"This wallet owes {format_usdc(int(owed))} for earlier answers whose payments could "
            f"not be collected. Pay it at POST /v1/debts/{payer}, then ask again."
        )


async def _flow_for(connection: AsyncConnection, payer: str, limits: Limits) -> Flow:
    if limits.trust_after == 0:
        return "authorization"
    settled = await connection.scalar(
        select(func.count()).where(
            payments.c.payer == payer,
            payments.c.state == PaymentState.SETTLED,
            payments.c.purpose == Purpose.ANSWER,
        )
    )
    return "authorization" if (settled or 0) >= limits.trust_after else "upfront"


async def _bound_exposure(connection: AsyncConnection, payment: NewPayment, limits: Limits) -> None:
    """A balance is verified for one payment at a time; this bounds what several can owe."""
    if payment.purpose is Purpose.ANSWER:
        own = _unsettled() & (payments.c.payer == payment.payer)
        own &= payments.c.purpose == Purpose.ANSWER
        if await _sum(connection, own) > limits.unsettled_per_payer:
            raise TooManyUnsettled(
                f"This wallet would have more than {format_usdc(limits.unsettled_per_payer)} of "
                "answers that are under way or not settled yet. Wait until they are settled, or "
                "open a tab with POST /v1/tabs."
            )
    if await _sum(connection, _unsettled()) > limits.unsettled:
        raise TooManyUnsettled(
            "Too many payments wait for their settlement. Try again in a moment."
        )


def _unsettled() -> ColumnElement[bool]:
    return payments.c.state.in_(UNSETTLED) & (payments.c.flow == "authorization")


async def _sum(connection: AsyncConnection, where: ColumnElement[bool]) -> int:
    return int(await connection.scalar(select(func.sum(payments.c.amount)).where(where)) or 0)


def _debt_of(payer: str) -> ColumnElement[bool]:
    return (payments.c.payer == payer) & (payments.c.state == PaymentState.DEBT)


def _same(payment: NewPayment) -> ColumnElement[bool]:
    authorization = (
        (payments.c.network == payment.network)
        & (payments.c.asset == payment.asset)
        & (payments.c.payer == payment.payer)
        & (payments.c.nonce == payment.nonce)
    )
    if payment.identifier is None:
        return authorization
    return or_(
        authorization,
        (payments.c.payer == payment.payer) & (payments.c.identifier == payment.identifier),
    )


def _conflict(what: str) -> PaymentConflict:
    return PaymentConflict(
        f"This payment authorization {what}. Sign a new one; the receipt of what an answer cost "
        "is at /v1/receipts/{id}, with the id from X-TinyBrain-Receipt."
    )
