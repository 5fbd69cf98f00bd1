"""Looks at settled payments once more, when they are deep enough that nothing undoes them.

A transfer that a reorganisation took away is settled again; one that it moved to another block or
transaction is noted there. A facilitator that claimed a transfer which never was is found out too.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from tinybrain.errors import PaymentServiceError
from tinybrain.payments.chain import LOG_RANGE, AuthorizationUse, Chain, Use
from tinybrain.payments.eip3009 import Transfer
from tinybrain.payments.ledger import IllegalTransition, Ledger
from tinybrain.payments.records import Collected, Purpose
from tinybrain.payments.uses import use_of
from tinybrain.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Transfers = dict[tuple[str, str | None], Transfer]
"""By sender and nonce, which the token lets move money once."""


class Reorganisations:
    """Makes settled payments final, or finds out that they are not."""

    def __init__(
        self, ledger: Ledger, chain: Chain, metrics: Metrics, *, confirmations: int
    ) -> None:
        self._ledger = ledger
        self._chain = chain
        self._metrics = metrics
        self._confirmations = confirmations

    async def look(self) -> None:
        """Look at all that is so many blocks deep and was not looked at yet.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        head = await self._chain.head()
        below = head - self._confirmations
        rows = await self._ledger.shallow(below=below)
        if not rows:
            return
        seen = await self._transfers(rows)
        final = [row.id for row in rows if _stands(row, seen, below)]
        if final:
            await self._ledger.final(final)
        for row in rows:
            if row.id not in final:
                await self._look_at(row, head)

    async def _transfers(self, rows: Sequence[Row[Any]]) -> Transfers:
        blocks = {row.transaction: row.block for row in rows}
        for transaction, block in blocks.items():
            if block is None:
                blocks[transaction] = await self._chain.still_there(transaction)
        wallets = {row.payer if row.purpose == Purpose.REFUND else row.pay_to for row in rows}
        found: Transfers = {}
        for first, last in _ranges(block for block in blocks.values() if block is not None):
            for made in await self._chain.transfers(wallets, from_block=first, to_block=last):
                found[made.sender, made.nonce] = made
        return found

    async def _look_at(self, row: Row[Any], head: int) -> None:
        try:
            # A node that lags behind refuses the block, instead of telling the past.
            use = await use_of(self._chain, row, begun_ms=row.claimed_ms, block_tag=head)
            if (use.transaction, use.block) == (row.transaction, row.block):
                return
            if use.block is not None and row.block is None and use.transaction == row.transaction:
                return  # it is not deep enough yet
            await self._moved(row, use)
        except IllegalTransition:
            log.info("payment %s is in another settler's hands", row.id)
        except PaymentServiceError as error:
            log.warning("payment %s could not be looked at again: %s", row.id, error.message)

    async def _moved(self, row: Row[Any], use: AuthorizationUse) -> None:
        await self._ledger.undone(row.id)
        if use.use is Use.TRANSFERRED and use.transaction:
            await self._ledger.settled([Collected(row.id, use.transaction, use.block)])
            log.info("the transfer of payment %s moved to block %s", row.id, use.block)
        else:
            self._metrics.settlement("undone")
            log.warning("the transfer of payment %s is gone; it is settled again", row.id)


def _stands(row: Row[Any], seen: Transfers, below: int) -> bool:
    made = seen.get((row.payer, row.nonce))
    return (
        made is not None
        and (made.receiver, made.value) == (row.pay_to, row.amount)
        and made.transaction == row.transaction
        and made.block == (row.block or made.block)
        and made.block <= below
    )


def _ranges(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges that hold all the blocks, each no longer than a provider answers for at once."""
    parts = groupby(sorted(set(blocks)), key=lambda block: block // LOG_RANGE)
    together = (list(part) for _, part in parts)
    return [(part[0], part[-1]) for part in together]
