"""Waits for a payment that is settled while its caller waits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tinybrain.errors import PaymentRequired
from tinybrain.payments.records import UNSETTLED, PaymentState
from tinybrain.payments.settlement import Outcome

log = logging.getLogger(__name__)

SettlePayment = Callable[[int], Awaitable[Outcome | None]]
"""Settles a payment of the ledger now, and tells where it stands."""

LOOK_EVERY_S = 0.2

Subject = TypeVar("Subject", int, str)


async def collect(
    settle: Callable[[Subject], Awaitable[Outcome | None]], subject: Subject, *, wait_s: float
) -> Outcome | None:
    """Settle a payment; None if its outcome is not known in time, it is settled later then.

    A Settlement that cannot be reached may be restarting: it is asked again.
    """
    try:
        async with asyncio.timeout(wait_s):
            while True:
                outcome = await _ask(settle, subject)
                if outcome is not None and outcome.state not in UNSETTLED:
                    return outcome
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        return None


async def _ask(
    settle: Callable[[Subject], Awaitable[Outcome | None]], subject: Subject
) -> Outcome | None:
    try:
        return await settle(subject)
    except Exception as error:  # noqa: BLE001  # the outbox will be drained without us
        log.warning("settlement of %s was not reached: %s", subject, type(error).__name__)
        return None


def require_collected(outcome: Outcome) -> None:
    """Refuse a payment whose money will not come.

    Raises:
        PaymentRequired: It was cancelled or spent elsewhere, or it expired.
    """
    if outcome.state in (PaymentState.RELEASED, PaymentState.DEBT):
        raise PaymentRequired(
            f"The payment could not be collected: {outcome.note}. Sign a new one.",
            code="payment_failed",
        )
