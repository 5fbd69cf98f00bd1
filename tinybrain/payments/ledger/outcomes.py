"""What the routing decision learns from, kept beside the money: judged answers and their labels.

No money moves here, and no texts are kept.
"""

import time
from collections.abc import Callable

from sqlalchemy import func, insert, select

from tinybrain.payments.database import Database
from tinybrain.payments.ledger.part import values_of
from tinybrain.payments.ledger.purchases import DAY_MS, is_audit
from tinybrain.payments.records import Judged, Label, PurchaseState
from tinybrain.payments.schema import answers, outcomes, purchases
from tinybrain.usdc import Usdc

LABEL = ("checkpoint", "source", "signals", "is_declined", "is_right", "probability")


class OutcomeBook:
    """Reads judged answers and audits, writes labels; every method raises LedgerUnavailable."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def record(self, label: Label) -> None:
        """Keep a label."""
        async with self._database.write() as connection:
            at_ms = int(self._clock() * 1000)
            await connection.execute(insert(outcomes).values(**values_of(label), at_ms=at_ms))

    async def labels(self, checkpoint: str, *, limit: int) -> list[Label]:
        """The latest labels of a checkpoint, the newest first."""
        query = (
            select(*(outcomes.c[name] for name in LABEL))
            .where(outcomes.c.checkpoint == checkpoint)
            .order_by(outcomes.c.id.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [Label(**row) for row in rows]

    async def judged(self, checkpoint: str, *, limit: int) -> list[Judged]:
        """The latest answers that a checkpoint's gate judged, the newest first.

        Of several choices only the least sure is recorded, so they are left out. An answer that
        was continued has its course recorded too, as the only one.
        """
        is_one = answers.c.choices.is_(None) | (func.json_array_length(answers.c.choices) == 1)
        query = (
            select(answers.c.signals, answers.c.reason)
            .where(answers.c.checkpoint == checkpoint, is_one)
            .order_by(answers.c.created_ms.desc(), answers.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Judged(row.signals, row.reason) for row in rows]

    async def audit_spend(self) -> Usdc:
        """What audits cost in the last 24 hours, paid or reserved."""
        query = select(func.sum(purchases.c.amount)).where(
            is_audit(),
            purchases.c.state != PurchaseState.RELEASED,
            purchases.c.created_ms > int(self._clock() * 1000) - DAY_MS,
        )
        async with self._database.read() as connection:
            return Usdc(int(await connection.scalar(query) or 0))
