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
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.merchant import payload_of, requirements_of
from tinybrain.payments.records import PaymentState
from tinybrain.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
CONCURRENCY = 32  # each waits for a receipt, about one block
CLOCK_MARGIN_S = 60  # the chain's clock may lag ours: until then it may still be mined
LOOK_BACK_S = 600


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
        self._under_way: dict[int, asyncio.Task[None]] = {}

    async def recover(self) -> None:
        """Once at start: take up what an earlier process left in the middle."""
        await self._ledger.reopen_settling()

    async def drain(self) -> int:
        """Work on every payment that is due; returns how many were looked at."""
        rows = await self._ledger.due_payments()
        results = await asyncio.gather(*map(self._work, rows), return_exceptions=True)
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, BaseException):
                # Its text could carry the stored payload, and with it a signature.
                log.error("payment %s could not be worked on: %s", row.id, type(result).__name__)
        return len(rows)

    async def tidy(self) -> None:
        """End what dead processes left behind, and find out what became of lost purchases."""
        await self._ledger.release_abandoned(older_than_s=self._abandoned_after_s)
        await self._ledger.release_unsigned_purchases(older_than_s=self._abandoned_after_s)
        for row in await self._ledger.unresolved_purchases(expired_for_s=CLOCK_MARGIN_S):
            try:
                await self._resolve(row)
            except PaymentServiceError as error:
                log.warning("purchase %s stays unresolved: %s", row.id, error.message)

    async def settle_answer(self, answer_id: str) -> Outcome | None:
        """Settle the payment of one answer now; None if nothing was paid for it."""
        row = await self._ledger.payment_of(answer_id)
        if row is None:
            return None
        if row.state in (PaymentState.SERVED, PaymentState.SETTLING):
            await self._work(row)
            row = await self._ledger.payment_of(answer_id) or row
        return Outcome(row.id, PaymentState(row.state), row.transaction, row.note)

    async def _work(self, row: Row[Any]) -> None:
        """Work on a payment, or wait for who does; the work goes on if the waiting is cancelled."""
        task = self._under_way.get(row.id)
        if task is None:
            task = asyncio.create_task(self._work_alone(row))
            self._under_way[row.id] = task
            task.add_done_callback(lambda _: self._under_way.pop(row.id, None))
        await asyncio.shield(task)

    async def _work_alone(self, row: Row[Any]) -> None:
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
            use = await self._use_of(row, row.claimed_ms)
        except PaymentServiceError as error:
            await self._retry(row, error.message)
            return
        if use.use is Use.TRANSFERRED and use.transaction:
            await self._settled(row, use.transaction)
        elif use.use is Use.CANCELLED:
            await self._owed(
                row, "the payer cancelled the authorization or spent its nonce elsewhere"
            )
        elif row.valid_before + CLOCK_MARGIN_S <= self._clock():
            await self._owed(row, f"the authorization expired unsettled: {failure}")
        else:
            await self._retry(row, failure)

    async def _use_of(self, row: Row[Any], since_ms: int) -> AuthorizationUse:
        return await self._chain.authorization_use(
            row.payer,
            row.nonce,
            pay_to=row.pay_to,
            amount=row.amount,
            since=since_ms // 1000 - LOOK_BACK_S,
            until=row.valid_before,
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

    async def _resolve(self, row: Row[Any]) -> None:
        use = await self._use_of(row, row.created_ms)
        if use.use is Use.TRANSFERRED:
            await self._ledger.paid(row.id, transaction=use.transaction)
            self._metrics.spend(row.amount, row.provider)
        else:
            await self._ledger.release_purchase(row.id, note="expired unused")
