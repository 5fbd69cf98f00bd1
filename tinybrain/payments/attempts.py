"""One attempt at settling payments: given to the facilitator, noted, or looked up on the chain.

Whether money moved is never decided from an error message: whatever does not plainly succeed is
looked up. Knows nothing of what was sold, nor of who waits for the outcome.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row
from x402.mechanisms.evm.constants import ERR_SETTLEMENT_PENDING
from x402.schemas import SettleResponse

from tinybrain.config import SETTLE_MARGIN_S
from tinybrain.errors import PaymentServiceError
from tinybrain.payments.chain import Chain, Use
from tinybrain.payments.facilitators.base import Facilitator, Order
from tinybrain.payments.ledger import IllegalTransition, Ledger
from tinybrain.payments.merchant import payload_of, requirements_of
from tinybrain.payments.records import Collected, PaymentState, Purpose
from tinybrain.payments.refunding import CannotSign, RefundSigner
from tinybrain.payments.uses import use_of
from tinybrain.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
LOOK_UPS = 8  # at once
INTERRUPTED = "interrupted"


class Attempts:
    """Settles what is ready, and finds out what became of what is settling."""

    def __init__(
        self,
        ledger: Ledger,
        facilitator: Facilitator,
        chain: Chain,
        metrics: Metrics,
        refunds: RefundSigner,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._facilitator = facilitator
        self._chain = chain
        self._metrics = metrics
        self._refunds = refunds
        self._clock = clock
        self._look_ups = asyncio.Semaphore(LOOK_UPS)

    async def send(self, rows: Sequence[Row[Any]]) -> list[tuple[Row[Any], str]]:
        """Settle a batch; returns those whose outcome the chain must tell, with what was said."""
        taken = await self._ledger.take([row.id for row in rows])
        ours = [row for row in rows if row.id in taken]
        orders = [(row, order) for row in ours if (order := await self._order(row))]
        if not orders:
            return []
        self._metrics.batch(len(orders))
        settled: list[tuple[Row[Any], str]] = []
        pending: list[tuple[Row[Any], str]] = []
        unclear: list[tuple[Row[Any], str]] = []
        answers = await self._facilitator.settle_many([order for _, order in orders])
        for (row, _), answer in zip(orders, answers, strict=True):
            if not isinstance(answer, SettleResponse):
                unclear.append((row, answer.message))
            elif answer.success and answer.transaction:
                settled.append((row, answer.transaction))
            elif answer.error_reason == ERR_SETTLEMENT_PENDING:
                pending.append((row, answer.transaction))
            else:
                unclear.append((row, answer.error_reason or "refused"))
        await self._collected(settled)
        for row, transaction in pending:
            await self._pending(row, transaction)
        return unclear

    async def _order(self, row: Row[Any]) -> Order | None:
        """A payment as the facilitator takes it; None if there is none, then it is put back."""
        try:
            if row.purpose != Purpose.REFUND:
                return payload_of(row.payload), requirements_of(row.requirements)
            refund = self._refunds.sign(row)
        except CannotSign as error:
            await self._retry(row, error.message)
        except ValidationError:
            log.error("what is stored of payment %s cannot be read", row.id)  # noqa: TRY400  # see _spawn
            await self._retry(row, "what is stored of it cannot be read")
        else:
            with _unless_taken_over(row.id):
                await self._ledger.refund_signed(
                    row.id,
                    valid_before=refund.valid_before,
                    payload=refund.payload.model_dump(by_alias=True, exclude_none=True),
                )
                return refund.payload, refund.requirements
        return None

    async def _collected(self, settled: Sequence[tuple[Row[Any], str]]) -> None:
        hashes = list({transaction for _, transaction in settled})
        blocks = dict(zip(hashes, await asyncio.gather(*map(self._block_of, hashes)), strict=True))
        await self._note([(row, Collected(row.id, tx, blocks[tx])) for row, tx in settled])

    async def _block_of(self, transaction: str) -> int | None:
        try:
            return await self._chain.still_there(transaction)
        except PaymentServiceError:
            return None  # it is looked for again when it must be final (`reorganisations.py`)

    async def _note(self, settled: Sequence[tuple[Row[Any], Collected]]) -> None:
        if not settled:
            return
        try:
            await self._ledger.settled([transfer for _, transfer in settled])
        except IllegalTransition:
            for row, transfer in settled:
                with _unless_taken_over(row.id):
                    await self._ledger.settled([transfer])
                    self._count(row)
        else:
            for row, _ in settled:
                self._count(row)

    # --- asking the chain

    async def look_up(self, payment_id: int, failure: str | None = None) -> None:
        """Find out what became of a payment. `failure`: of our attempt, if there was one now."""
        async with self._look_ups:
            row = await self._ledger.payment(payment_id)
            if row is not None and row.state == PaymentState.SETTLING:
                await self._conclude(row, failure)

    async def _conclude(self, row: Row[Any], failure: str | None) -> None:
        try:
            use = await use_of(self._chain, row, begun_ms=row.claimed_ms)
        except PaymentServiceError as error:
            await self._later(row, failure, error.message)
            return
        if use.use is Use.TRANSFERRED and use.transaction:
            await self._note([(row, Collected(row.id, use.transaction, use.block))])
        elif row.purpose == Purpose.REFUND:
            cancelled = use.use is Use.CANCELLED
            await self._later(row, failure, "its nonce was cancelled" if cancelled else failure)
        elif use.use is Use.CANCELLED:
            await self._lost(
                row, "the payer cancelled the authorization or spent its nonce elsewhere"
            )
        elif use.use is Use.EXPIRED:
            reasons = ["the authorization expired unsettled", failure or row.note]
            await self._lost(row, ": ".join(filter(None, reasons)))
        else:
            await self._later(row, failure, failure)

    async def _later(self, row: Row[Any], failure: str | None, note: str | None) -> None:
        if failure is None and row.due_ms > self._ledger.now_ms():
            return  # asked for early: it is another settler's, or on its way
        if row.transaction and self._clock() < row.valid_before - SETTLE_MARGIN_S:
            await self._pending(row, row.transaction)
        else:
            await self._retry(row, note or INTERRUPTED)

    async def _pending(self, row: Row[Any], transaction: str) -> None:
        with _unless_taken_over(row.id):
            await self._ledger.look_again(row.id, after_s=_pause_s(row), transaction=transaction)
            self._metrics.settlement("pending")

    async def _retry(self, row: Row[Any], note: str) -> None:
        if row.purpose == Purpose.REFUND:
            log.warning("refund %s of payment %s is tried again: %s", row.id, row.refund_of, note)
        with _unless_taken_over(row.id):
            await self._ledger.try_again(row.id, after_s=_pause_s(row), note=note)
            self._metrics.settlement("retry")

    async def _lost(self, row: Row[Any], note: str) -> None:
        with _unless_taken_over(row.id):
            state = await self._ledger.uncollectable(row.id, note)
            self._metrics.settlement(state)
            if state is PaymentState.DEBT:
                self._metrics.debt(row.owed)
                log.warning("payment %s is a debt: %s", row.id, note)

    def _count(self, row: Row[Any]) -> None:
        self._metrics.settlement("settled")
        if row.purpose == Purpose.REFUND:
            self._metrics.refund(row.amount)
        else:
            self._metrics.revenue(row.amount)
        # When a payment that was tried before became ready is not kept.
        ready_ms = row.claimed_ms if row.attempts else row.updated_ms
        self._metrics.settled_after(self._clock() - ready_ms / 1000)


@contextmanager
def _unless_taken_over(payment_id: int) -> Iterator[None]:
    """Another settler may have taken over a payment that we work on; it finds out as much."""
    try:
        yield
    except IllegalTransition:
        log.info("payment %s is in another settler's hands", payment_id)


def _pause_s(row: Row[Any]) -> float:
    attempts: int = row.attempts
    return min(FIRST_RETRY_S * 2.0 ** min(max(attempts - 1, 0), 10), LONGEST_RETRY_S)
