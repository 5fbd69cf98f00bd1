"""Refunds: EIP-3009 transfers from us to a payer, settled like any payment.

The nonce is fixed when the refund is decided, so however often it is signed and sent, the token
moves the money once.
"""

import secrets
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.ledger.part import LedgerPart, change, require_change
from tinybrain.payments.records import UNSETTLED, PaymentState, Purpose
from tinybrain.payments.schema import payments


class Refunds(LedgerPart):
    """What the Settlement process notes of refunds."""

    async def refund_signed(
        self, payment_id: int, *, valid_before: int, payload: dict[str, Any]
    ) -> None:
        """Note the newest signature of a refund before it is sent."""
        async with self._database.write() as connection:
            await require_change(
                connection,
                payments,
                (payments.c.id == payment_id)
                & (payments.c.purpose == Purpose.REFUND)
                & (payments.c.state == PaymentState.SETTLING),
                f"Refund {payment_id} is not settling.",
                valid_before=valid_before,
                payload=payload,
            )


async def refund(
    connection: AsyncConnection, row: Row[Any], *, amount: int, now: int
) -> int | None:
    """Give `amount` of a settled payment back to who made it; returns the refund's id."""
    if amount == 0:
        return None
    earlier = select(payments.c.id).where(payments.c.refund_of == row.id)
    if found := await connection.scalar(earlier):  # settled again after a reorganisation
        return int(found)
    result = await connection.execute(
        insert(payments).values(
            purpose=Purpose.REFUND,
            flow="authorization",
            tab_id=row.tab_id,
            refund_of=row.id,
            network=row.network,
            asset=row.asset,
            payer=row.pay_to,
            nonce="0x" + secrets.token_hex(32),
            pay_to=row.payer,
            amount=amount,
            owed=amount,
            valid_before=0,  # not signed yet
            request_hash="",
            payload={},
            requirements={},
            state=PaymentState.SERVED,
            final=False,
            attempts=0,
            claimed_ms=now,
            updated_ms=now,
            due_ms=now,
        )
    )
    return int((result.inserted_primary_key or [0])[0])


async def note_refunded(connection: AsyncConnection, payment_id: int, *, now: int) -> None:
    """Settled → refunded, if the chain shows that all of it was given back."""
    refunds = payments.alias()
    given_back = (
        select(refunds.c.amount)
        .where(refunds.c.refund_of == payment_id, refunds.c.state == PaymentState.SETTLED)
        .scalar_subquery()
    )
    await change(
        connection,
        payments,
        (payments.c.id == payment_id)
        & (payments.c.state == PaymentState.SETTLED)
        & (payments.c.amount == given_back),
        state=PaymentState.REFUNDED,
        updated_ms=now,
    )


async def stop_refund(connection: AsyncConnection, row: Row[Any], *, now: int) -> int:
    """Do not refund what cannot be collected after all; returns what was sent already."""
    own = payments.c.refund_of == row.id
    await change(
        connection,
        payments,
        own & (payments.c.state == PaymentState.SERVED),
        state=PaymentState.RELEASED,
        refund_of=None,  # the authorization may yet buy something, and that be refunded
        updated_ms=now,
        note=f"payment {row.id} was not collected",
    )
    return int(await connection.scalar(select(func.sum(payments.c.amount)).where(own)) or 0)


def may_be_sent() -> ColumnElement[bool]:
    """Not a refund of a payment that a reorganisation took away again."""
    refunded = payments.alias()
    undone = (
        select(refunded.c.id)
        .where(refunded.c.id == payments.c.refund_of, refunded.c.state.in_(UNSETTLED))
        .exists()
    )
    return ~undone
