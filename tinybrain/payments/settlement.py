"""Settles what the ledger's outbox names: callers' payments to us, our refunds to them.

Knows what is due and who waits for it; what an attempt is, `attempts.py` knows. Two settlers on
one ledger disturb each other's timing, never the outcome: the ledger gives each payment to one,
and the token moves each authorization's money once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from tinybrain.errors import NotFound
from tinybrain.payments.attempts import INTERRUPTED, Attempts
from tinybrain.payments.chain import Chain
from tinybrain.payments.facilitators.base import Facilitator
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import PaymentState
from tinybrain.payments.refunding import RefundSigner
from tinybrain.payments.wallet import HotWallet
from tinybrain.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

GATHER_S = 0.005  # how long the first of several waits for the others
BATCHES = 16  # under way at once; each waits for a receipt, about one block
DUE_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a payment stands after an attempt, with the transaction if there is one."""

    payment_id: int
    state: PaymentState
    transaction: str | None = None
    note: str | None = None


class Settler:
    """Settles payments; safe to call for the same payment from any number of tasks."""

    def __init__(
        self,
        ledger: Ledger,
        facilitator: Facilitator,
        chain: Chain,
        metrics: Metrics,
        refunds: RefundSigner,
        *,
        wallet: HotWallet | None = None,
        batch_size: int = 50,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._attempts = Attempts(ledger, facilitator, chain, metrics, refunds, clock=clock)
        self._wallet = wallet
        self._batch_size = batch_size
        self._under_way: dict[int, asyncio.Future[None]] = {}
        self._interrupted: dict[int, Row[Any]] = {}
        self._asking = 0
        self._gathered: list[Row[Any]] = []
        self._gathering = asyncio.Lock()
        self._batches = asyncio.Semaphore(BATCHES)
        self._tasks: set[asyncio.Task[None]] = set()

    async def recover(self) -> None:
        """Once at start: take up what an earlier process left in the middle."""
        if self._wallet is not None:
            await self._wallet.resume()
        await self._ledger.reopen_settling()

    async def start(self) -> list[asyncio.Future[None]]:
        """Begin work on every payment that is due; each future is done when its work has ended.

        Due is also what was interrupted, for example by a database that went away while it noted
        that we take a payment: nobody else works on it, and its authorization may not outlast the
        lease.
        """
        rows = await self._ledger.due_payments(limit=DUE_AT_ONCE)
        works = [self._work_on(row) for row in rows]
        rest = [row for row in self._interrupted.values() if row.id not in self._under_way]
        return works + [self._look_up(row) for row in rest]

    async def drain(self) -> int:
        """Work on every payment that is due, to the end; returns how many those were."""
        works = await self.start()
        if works:
            await asyncio.wait(works)
        return len(works)

    async def settle_answer(self, answer_id: str) -> Outcome | None:
        """Settle the payment of one answer now; None if nothing was paid for it."""
        with self._asks():
            row = await self._ledger.payment_of(answer_id)
        return None if row is None else await self._settle_now(row)

    async def settle_payment(self, payment_id: int) -> Outcome:
        """Settle one payment now.

        Raises:
            NotFound: There is none.
        """
        with self._asks():
            row = await self._ledger.payment(payment_id)
        if row is None:
            raise NotFound(f"There is no payment {payment_id}.")
        return await self._settle_now(row)

    @contextmanager
    def _asks(self) -> Iterator[None]:
        """Lets the one who gathers a batch know that somebody is about to join."""
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    async def _settle_now(self, row: Row[Any]) -> Outcome:
        if _is_open(row):
            await asyncio.wait([self._work_on(row)])
            row = await self._ledger.payment(row.id) or row
        return Outcome(row.id, PaymentState(row.state), row.transaction, row.note)

    # --- who works on what: every payment under way has one future, whoever waits for it

    def _work_on(self, row: Row[Any]) -> asyncio.Future[None]:
        work = self._under_way.get(row.id)
        if work is not None:
            return work
        if row.state == PaymentState.SETTLING:
            return self._look_up(row)
        work = self._under_way[row.id] = asyncio.get_running_loop().create_future()
        self._gathered.append(row)
        if len(self._gathered) == 1:
            self._spawn(self._gather(), [])
        return work

    def _look_up(self, row: Row[Any]) -> asyncio.Future[None]:
        interrupted = self._interrupted.pop(row.id, None) is not None
        failure = INTERRUPTED if interrupted else None
        work = self._under_way[row.id] = asyncio.get_running_loop().create_future()
        self._spawn(self._attempts.look_up(row.id, failure), [row])
        return work

    def _spawn(self, work: Coroutine[Any, Any, None], rows: list[Row[Any]]) -> None:
        """Work in a task that no caller's cancellation reaches; at its end `rows` are done with."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            ids = [row.id for row in rows]
            if not task.cancelled() and (error := task.exception()):
                # Its text could carry the stored payload, and with it a signature.
                log.error("work on payments %s failed: %s", ids, type(error).__name__)
                self._interrupted.update((row.id, row) for row in rows)
            for payment_id in ids:
                self._under_way.pop(payment_id).set_result(None)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def _gather(self) -> None:
        """Make batches of what is gathered; while all are under way, more of it comes together."""
        async with self._gathering:
            others = self._asking or len(self._under_way) > len(self._gathered)
            if self._gathered and others:
                await asyncio.sleep(GATHER_S)
            while self._gathered:
                await self._batches.acquire()
                batch = self._gathered[: self._batch_size]
                del self._gathered[: self._batch_size]
                self._spawn(self._settle(batch), batch)

    async def _settle(self, rows: list[Row[Any]]) -> None:
        try:
            unclear = await self._attempts.send(rows)
        finally:
            self._batches.release()
        for row, failure in unclear:
            rows.remove(row)  # it is not done with yet
            self._spawn(self._attempts.look_up(row.id, failure), [row])


def _is_open(row: Row[Any]) -> bool:
    if row.state == PaymentState.CLAIMED:
        return bool(row.flow == "upfront")
    return row.state in (PaymentState.SERVED, PaymentState.SETTLING)
