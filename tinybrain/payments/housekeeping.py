"""Ends what nobody ends any more: answers and purchases of dead processes, idle tabs, old replies.

Chores run one after another; one that fails is logged and tried again in the next round, and
stops none of the others. None of them takes the ledger's write lock when there is nothing to do.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Row, and_, func, or_, select

from tinybrain.config import SETTLE_MARGIN_S, Settings
from tinybrain.errors import PaymentConflict, TinyBrainError
from tinybrain.payments.chain import EXPIRY_MARGIN_S, Chain, Use
from tinybrain.payments.database import Database
from tinybrain.payments.gas_watch import GasWatch
from tinybrain.payments.ledger import IllegalTransition, Ledger
from tinybrain.payments.opening import open_books
from tinybrain.payments.records import PaymentState
from tinybrain.payments.schema import payments
from tinybrain.payments.uses import use_of
from tinybrain.telemetry.metrics import Levels, Metrics

log = logging.getLogger(__name__)

LOOK_UPS = 8

Chore = Callable[[], Awaitable[None]]


class Housekeeping:
    """The chores of the one process that settles."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        ledger: Ledger,
        chain: Chain,
        metrics: Metrics,
        levels: Levels,
        *,
        gas: GasWatch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._database = database
        self._ledger = ledger
        self._chain = chain
        self._metrics = metrics
        self._levels = levels
        self._clock = clock
        self._abandoned_after_s = settings.answer_timeout_s + SETTLE_MARGIN_S
        self._look_ups = asyncio.Semaphore(LOOK_UPS)
        self._chores: list[Chore] = [
            self.open_books,
            self.release_abandoned,
            self.resolve_purchases,
            self.prove_purchases,
            self.close_idle_tabs,
            self.close_uncovered_tabs,
            self.forget_replies,
            self.measure_backlog,
            *([gas.look] if gas else []),
        ]

    async def run(self) -> None:
        """Every chore once."""
        for chore in self._chores:
            try:
                await chore()
            except TinyBrainError as error:
                log.warning("%s was not done: %s", chore.__name__, error.message)
            except Exception:
                log.exception("%s failed", chore.__name__)

    async def open_books(self) -> None:
        """Note what our wallets held before the ledger's first movement."""
        await open_books(self._settings, self._database, self._ledger, self._chain)

    async def release_abandoned(self) -> None:
        """End answers, and reservations of purchases, whose process died."""
        await self._ledger.release_abandoned(older_than_s=self._abandoned_after_s)
        await self._ledger.release_unsigned_purchases(older_than_s=self._abandoned_after_s)

    async def resolve_purchases(self) -> None:
        """Find out what became of purchases whose answer was lost."""
        rows = await self._ledger.unresolved_purchases(expired_for_s=EXPIRY_MARGIN_S)
        await self._each(self._resolve, rows)

    async def prove_purchases(self) -> None:
        """Ask the chain for what sellers said: only it knows whether they took the money."""
        rows = await self._ledger.unproven_purchases(expired_for_s=EXPIRY_MARGIN_S)
        await self._each(self._prove, rows)

    async def close_idle_tabs(self) -> None:
        """Close tabs that were not used for so long that their owners will not come back."""
        idle = await self._ledger.idle_tabs(
            bar_idle_s=self._settings.bar_tab_idle_s, prepaid_idle_s=self._settings.tab_idle_s
        )
        for tab_id in idle:
            await self._close_tab(tab_id, "is idle")

    async def close_uncovered_tabs(self) -> None:
        """Close bar tabs whose deposit the payer's balance no longer covers."""
        await self._each(self._check_cover, await self._ledger.open_bar_tabs())

    async def forget_replies(self) -> None:
        """Delete what was said in answers that are not repeated any more."""
        await self._ledger.forget_replies(older_than_s=self._settings.replay_s)

    async def measure_backlog(self) -> None:
        """Tell how long the oldest payment has been waiting for its settlement."""
        upfront = and_(payments.c.state == PaymentState.CLAIMED, payments.c.flow == "upfront")
        waiting = payments.c.state.in_([PaymentState.SERVED, PaymentState.SETTLING])
        query = select(func.min(payments.c.claimed_ms)).where(or_(waiting, upfront))
        async with self._database.read() as connection:
            oldest_ms = await connection.scalar(query)
        age_s = 0.0 if oldest_ms is None else max(0.0, self._clock() - oldest_ms / 1000)
        self._levels.oldest_unsettled(age_s)

    async def _each(self, work: Callable[[Row[Any]], Awaitable[None]], rows: Any) -> None:
        """Work on every row, several at once; raises what the first one raised that failed."""

        async def bounded(row: Row[Any]) -> None:
            async with self._look_ups:
                await work(row)

        results = await asyncio.gather(*map(bounded, rows), return_exceptions=True)
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure

    async def _resolve(self, row: Row[Any]) -> None:
        use = await use_of(self._chain, row, begun_ms=row.created_ms)
        if use.use is Use.TRANSFERRED:
            await self._ledger.paid(row.id, transaction=use.transaction)
            self._metrics.spend(row.amount, row.provider)
        elif use.use is not Use.UNUSED:
            await self._ledger.release_purchase(row.id, note="expired unused")

    async def _prove(self, row: Row[Any]) -> None:
        use = await use_of(self._chain, row, begun_ms=row.created_ms)
        if use.use is Use.TRANSFERRED and use.transaction:
            await self._ledger.proven(row.id, transaction=use.transaction)
        elif use.use is not Use.UNUSED:
            log.warning("%s said that purchase %s was paid; it was not", row.provider, row.id)
            await self._ledger.never_collected(row.id)

    async def _check_cover(self, tab: Row[Any]) -> None:
        if await self._chain.balance(tab.payer) < tab.deposit:
            await self._ledger.stop_tab(tab.id)
            await self._close_tab(tab.id, "is no longer covered by its payer's balance")

    async def _close_tab(self, tab_id: str, why: str) -> None:
        try:
            await self._ledger.close_tab(tab_id)
        except (PaymentConflict, IllegalTransition) as error:
            log.info("tab %s %s and stays open for now: %s", tab_id, why, error.message)
        else:
            log.info("tab %s %s and was closed", tab_id, why)
