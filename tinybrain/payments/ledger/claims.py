"""Claiming a payment: once for ever, within what its payer may owe."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.config import Flow
from tinybrain.errors import DebtOwed, PaymentConflict, TooManyUnsettled
from tinybrain.payments.ledger.part import LedgerPart, change, values_of
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

# Built once: a claim stands between a caller and the answer, and SQLAlchemy takes twice as long to
# build and hash a query as SQLite takes to execute it.
SAME = or_(
    (payments.c.network == bindparam("network"))
    & (payments.c.asset == bindparam("asset"))
    & (payments.c.payer == bindparam("payer"))
    & (payments.c.nonce == bindparam("nonce")),
    (payments.c.payer == bindparam("payer")) & (payments.c.identifier == bindparam("identifier")),
)
"""The same authorization, or the same payer with the same payment-identifier; see `_key`."""
INSERT = insert(payments)
FOUND = select(payments).where(SAME)
EARLIER = (
    select(payments, answers.c.outcome, replies.c.body)
    .outerjoin(answers, answers.c.id == payments.c.answer_id)
    .outerjoin(replies, replies.c.id == payments.c.answer_id)
    .where(SAME, payments.c.state != PaymentState.RELEASED)
    .order_by(payments.c.id)
)
IS_DEBT = (payments.c.payer == bindparam("payer")) & (payments.c.state == PaymentState.DEBT)
IS_UNSETTLED = (
    payments.c.state.in_(UNSETTLED)
    & (payments.c.flow == "authorization")
    & (payments.c.purpose != Purpose.REFUND)
)
IS_OWN_ANSWER = (payments.c.payer == bindparam("payer")) & (payments.c.purpose == Purpose.ANSWER)
STANDING = select(
    select(func.count()).where(SAME).scalar_subquery().label("uses"),
    select(func.sum(payments.c.owed)).where(IS_DEBT).scalar_subquery().label("owed"),
    select(func.sum(payments.c.amount))
    .where(IS_UNSETTLED & IS_OWN_ANSWER)
    .scalar_subquery()
    .label("unsettled_own"),
    select(func.sum(payments.c.amount))
    .where(IS_UNSETTLED & (payments.c.purpose == bindparam("purpose")))
    .scalar_subquery()
    .label("unsettled"),
    select(func.count())
    .where(
        (payments.c.purpose == Purpose.REFUND)
        & (payments.c.pay_to == bindparam("payer"))
        & (payments.c.claimed_ms > bindparam("refunds_since"))
    )
    .scalar_subquery()
    .label("refunds"),
)
"""How often a payment was used; what its payer owes and has under way; what all payers have under
way for the same purpose (idle bar tabs must not keep answers from being sold); and how often the
payer was refunded lately."""
REFUND_GIVEN = payments.alias("refund_given")
KEPT = (
    select(func.count())
    .select_from(payments)
    .where(
        payments.c.payer == bindparam("payer"),
        payments.c.state == PaymentState.SETTLED,
        payments.c.purpose == Purpose.ANSWER,
        ~select(REFUND_GIVEN.c.id).where(REFUND_GIVEN.c.refund_of == payments.c.id).exists(),
    )
)
"""Payments of a payer that were settled and not given back."""
HOUR_MS = 3_600_000


class Claims(LedgerPart):
    """Looks up earlier uses of a payment."""

    async def recorded(self, payment: NewPayment) -> Recorded | None:
        """The answer this payment bought before; None if it may buy one now.

        The same payment is the same authorization, or the same payer with the same
        payment-identifier. Its signature must have been checked.

        Raises:
            PaymentConflict: It was used for another request, or for something else.
        """
        row = await self.require_unclaimed(payment)
        if row is None:
            return None
        if row.answer_id is None:
            raise _conflict("is already used")
        return Recorded(row.answer_id, row.outcome, row.body)

    async def require_unclaimed(self, payment: NewPayment) -> Row[Any] | None:
        """The earlier claim for the same request, with its answer's `outcome` and `body`, if any.

        Raises:
            PaymentConflict: It was used for another request.
        """
        async with self._database.read() as connection:
            rows = (await connection.execute(EARLIER, _key(payment))).all()
        # Its authorization may be known from one request, and its identifier from another.
        if any(
            row.purpose != payment.purpose or row.request_hash != payment.request_hash
            for row in rows
        ):
            raise _conflict("is already used for another request")
        return rows[0] if rows else None

    async def debts(self, payer: str) -> list[Row[Any]]:
        """What a payer owes for: payments whose answers were delivered and not paid."""
        async with self._database.read() as connection:
            query = select(payments).where(IS_DEBT).order_by(payments.c.id)
            return list((await connection.execute(query, {"payer": payer})).all())


async def claim(
    connection: AsyncConnection,
    payment: NewPayment,
    *,
    now: int,
    limits: Limits | None,
    **subject: object,
) -> tuple[int, Flow]:
    """Insert a payment; `subject` are the columns that say what it pays for.

    Without `limits` it pays for what is owed already, which is never refused.

    Returns:
        The row's id, and the flow: upfront too for a payer who is not trusted yet.

    Raises:
        PaymentConflict: It is claimed, or already bought something.
        DebtOwed: The payer owes for earlier answers.
        TooManyUnsettled: The payer, or all payers together, may not owe more.
    """
    flow = payment.flow
    if limits is None:
        earlier = await _require_unused(connection, payment)
    else:
        about = {"purpose": payment.purpose, "refunds_since": now - HOUR_MS}
        standing = (await connection.execute(STANDING, _key(payment) | about)).one()
        earlier = await _require_unused(connection, payment) if standing.uses else []
        if payment.purpose is Purpose.ANSWER and not await _is_trusted(
            connection, payment.payer, limits
        ):
            flow = "upfront"
        _require_good_standing(standing, payment, flow, limits)
    values = {
        **values_of(payment),
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
        "answer_id": None,  # a released row may have paid for something else
        "tab_id": None,
        "debtor": None,
        **subject,
    }
    return await _insert(connection, payment, values, earlier), flow


async def _require_unused(connection: AsyncConnection, payment: NewPayment) -> Sequence[Row[Any]]:
    """The earlier claims of a payment, which were all released."""
    found = (await connection.execute(FOUND, _key(payment))).all()
    if any(row.state != PaymentState.RELEASED for row in found):
        raise _conflict("is already used")
    return found


async def _insert(
    connection: AsyncConnection,
    payment: NewPayment,
    values: dict[str, object],
    earlier: Sequence[Row[Any]],
) -> int:
    if earlier:
        # What they paid for failed and was not charged: authorization and identifier are still
        # good.
        ids = [row.id for row in earlier]
        await change(connection, payments, payments.c.id.in_(ids), identifier=None)
    own = next((row.id for row in earlier if _is(payment, row)), None)
    if own is not None:
        await change(connection, payments, payments.c.id == own, **values)
        return int(own)
    result = await connection.execute(INSERT, values)
    return int((result.inserted_primary_key or [0])[0])


async def require_trust(connection: AsyncConnection, payer: str, limits: Limits) -> None:
    """Refuse a payer who must settle first.

    Raises:
        TooManyUnsettled: He has too few settled payments to be trusted.
    """
    if not await _is_trusted(connection, payer, limits):
        raise TooManyUnsettled(
            "This wallet is not known here well enough for an answer ahead of its payment. Open a "
            "prepaid tab with POST /v1/tabs instead.",
            code="payer_not_trusted",
        )


async def _is_trusted(connection: AsyncConnection, payer: str, limits: Limits) -> bool:
    if limits.trust_after == 0:
        return True
    kept = await connection.scalar(KEPT, {"payer": payer})
    return (kept or 0) >= limits.trust_after


def _require_good_standing(
    standing: Row[*tuple[Any, ...]], payment: NewPayment, flow: Flow, limits: Limits
) -> None:
    """A balance is verified for one payment at a time; this bounds what several can owe."""
    if standing.owed:
        raise DebtOwed(
            f"This wallet owes {format_usdc(int(standing.owed))} for earlier answers whose "
            f"payments could not be collected. Pay it at POST /v1/debts/{payment.payer}, then ask "
            "again."
        )
    if flow == "upfront":
        if standing.refunds >= limits.refunds_per_hour:
            raise TooManyUnsettled(
                f"This wallet was refunded {limits.refunds_per_hour} times in the last hour. Try "
                "again later.",
                code="too_many_refunds",
            )
        return
    own = int(standing.unsettled_own or 0) + payment.amount
    if payment.purpose is Purpose.ANSWER and own > limits.unsettled_per_payer:
        raise TooManyUnsettled(
            f"This wallet would have more than {format_usdc(limits.unsettled_per_payer)} of "
            "answers that are under way or not settled yet. Wait until they are settled, or "
            "open a tab with POST /v1/tabs."
        )
    if int(standing.unsettled or 0) + payment.amount > limits.unsettled:
        raise TooManyUnsettled(
            "Too many payments wait for their settlement. Try again in a moment."
        )


def _key(payment: NewPayment) -> dict[str, str | None]:
    return {
        "network": payment.network,
        "asset": payment.asset,
        "payer": payment.payer,
        "nonce": payment.nonce,
        "identifier": payment.identifier,
    }


def _is(payment: NewPayment, row: Row[Any]) -> bool:
    own = (payment.network, payment.asset, payment.payer, payment.nonce)
    return own == (row.network, row.asset, row.payer, row.nonce)


def _conflict(what: str) -> PaymentConflict:
    return PaymentConflict(
        f"This payment authorization {what}. Sign a new one; the receipt of what an answer cost "
        "is at /v1/receipts/{id}, with the id from X-TinyBrain-Receipt."
    )
