"""Collects the money for served answers: drains the ledger's outbox through a facilitator.

One Settler runs at a time. It never decides from an error message whether money moved: whenever
a settlement does not plainly succeed, the chain is asked.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from tinybrain.config import SETTLE_MARGIN_S
from tinybrain.errors import PaymentServiceError
from tinybrain.payments.chain import AuthorizationUse, Chain, Use
from tinybrain.payments.facilitators import Facilitator
from tinybrain.payments.ledger import Ledger, PaymentState
from tinybrain.payments.merchant import payload_of, requirements_of
from tinybrain.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a payment stands after an attempt, with the transaction if there is one."""

    payment_id: int
    state: PaymentState
    transaction: str | None = None
    note: str | None = None


class Settler:
    """Settles payments one by one; safe to call for the same payment from several tasks."""

    def __init__(
        self,
        ledger: Ledger,
        facilitator: Facilitator,
        chain: Chain,
        metrics: Metrics,
        *,
        answer_timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._facilitator = facilitator
        self._chain = chain
        self._metrics = metrics
        self._abandoned_after_s = answer_timeout_s + SETTLE_MARGIN_S
        self._clock = clock
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def recover(self) -> None:
        """Once at start: take up what an earlier process left in the middle."""
        await self._ledger.reopen_settling()

    async def drain(self) -> int:
        """Work on everything that is due; returns how many payments were looked at."""
        await self._ledger.release_abandoned(older_than_s=self._abandoned_after_s)
        await self._ledger.release_unsigned_purchases(older_than_s=self._abandoned_after_s)
        rows = await self._ledger.due_payments()
        results = await asyncio.gather(*map(self._work, rows), return_exceptions=True)
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, BaseException):
                log.error("payment %s could not be worked on: %r", row.id, result)
        await self._resolve_purchases()
        return len(rows)

    async def settle_answer(self, answer_id: str) -> Outcome | None:
        """Settle the payment of one answer now; None if nothing was paid for it."""
        row = await self._ledger.payment_of(answer_id)
        if row is None:
            return None
        if row.state == PaymentState.SERVED:
            await self._work(row)
            row = await self._ledger.payment_of(answer_id) or row
        return Outcome(row.id, PaymentState(row.state), row.transaction, row.note)

    async def _work(self, row: Row[Any]) -> None:
        async with self._slots:
            if row.state == PaymentState.SETTLING:
                await self._look_up(row)
            elif await self._ledger.take(row.id):
                await self._settle(row)

    async def _settle(self, row: Row[Any]) -> None:
        try:
            result = await self._facilitator.settle(
                payload_of(row.payload), requirements_of(row.requirements)
            )
        except PaymentServiceError as error:
            await self._look_up(row, failure=error.message)
            return
        if result.success and result.transaction:
            await self._settled(row, result.transaction)
        elif result.error_reason == "settlement_pending":
            await self._ledger.look_again(
                row.id, after_s=FIRST_RETRY_S, transaction=result.transaction
            )
        else:
            await self._look_up(row, failure=result.error_reason or "refused")

    async def _look_up(self, row: Row[Any], failure: str = "interrupted") -> None:
        try:
            use = await self._use_of(row)
        except PaymentServiceError as error:
            await self._retry(row, error.message)
            return
        if use.use is Use.TRANSFERRED and use.transaction:
            await self._settled(row, use.transaction)
        elif use.use is Use.CANCELLED:
            await self._owed(
                row, "the payer cancelled the authorization or spent its nonce elsewhere"
            )
        elif row.valid_before <= self._clock():
            await self._owed(row, f"the authorization expired unsettled: {failure}")
        else:
            await self._retry(row, failure)

    async def _use_of(self, row: Row[Any]) -> AuthorizationUse:
        return await self._chain.authorization_use(
            row.payer, row.nonce, pay_to=row.pay_to, amount=row.amount
        )

    async def _settled(self, row: Row[Any], transaction: str) -> None:
        await self._ledger.settled(row.id, transaction)
        self._metrics.settlement("settled")
        self._metrics.revenue(row.amount)

    async def _owed(self, row: Row[Any], note: str) -> None:
        await self._ledger.owed(row.id, note)
        self._metrics.settlement("debt")
        log.warning("payment %s is a debt: %s", row.id, note)

    async def _retry(self, row: Row[Any], note: str) -> None:
        after = min(FIRST_RETRY_S * 2 ** min(row.attempts, 10), LONGEST_RETRY_S)
        await self._ledger.try_again(row.id, after_s=after, note=note)
        self._metrics.settlement("retry")

    async def _resolve_purchases(self) -> None:
        for row in await self._ledger.unresolved_purchases():
            try:
                use = await self._use_of(row)
            except PaymentServiceError:
                return
            if use.use is Use.TRANSFERRED:
                await self._ledger.paid(row.id, transaction=use.transaction)
            else:
                await self._ledger.release_purchase(row.id, note="expired unused")
