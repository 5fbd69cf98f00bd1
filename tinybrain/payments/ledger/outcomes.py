"""What the routing decision learns from, kept beside the money: judged answers and their labels.

No money moves here, and no texts are kept.
"""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Select, func, insert, select

from tinybrain.payments.database import Database
from tinybrain.payments.ledger.part import values_of
from tinybrain.payments.ledger.purchases import DAY_MS, is_audit
from tinybrain.payments.records import Judged, Label, PurchaseState, Spending
from tinybrain.payments.schema import answers, outcomes, purchases
from tinybrain.usdc import Usdc

LABEL = ("checkpoint", "source", "signals", "is_declined", "is_right", "probability")
DOUBTED = "uncertainty"
"""The reason of an answer whose opening the gate dropped."""


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

    async def spending(self, checkpoint: str) -> Spending:
        """What the last 24 hours cost, and how much of it a checkpoint's gate decided."""
        now = int(self._clock() * 1000)
        of_gate = answers.c.checkpoint == checkpoint
        first = select(func.min(answers.c.created_ms)).where(of_gate)
        async with self._database.read() as connection:
            since = max(now - DAY_MS, await connection.scalar(first) or now)
            judged = select(func.count()).where(of_gate, answers.c.created_ms >= since)
            count = await connection.scalar(judged) or 0
            sums = (await connection.execute(_bought(of_gate, now - DAY_MS, since))).one()
        doubted = int(sums.doubted or 0)
        return Spending(
            total=Usdc(int(sums.total or 0)),
            audits=Usdc(int(sums.audits or 0)),
            doubted=Usdc(doubted),
            others=Usdc(int(sums.since or 0) - doubted),
            doubts=sums.doubts,
            judged=count,
            seconds=(now - since) / 1000,
        )


def _bought(of_gate: ColumnElement[bool], day_began: int, since: int) -> Select[*tuple[Any, ...]]:
    """Sums over a day's purchases; an audit is of no answer, which makes its conditions null."""
    amount = purchases.c.amount
    is_since = purchases.c.created_ms >= since
    is_doubted = of_gate & (answers.c.reason == DOUBTED) & is_since
    return (
        select(
            func.sum(amount).label("total"),
            func.sum(amount).filter(is_audit()).label("audits"),
            func.sum(amount).filter(is_since).label("since"),
            func.sum(amount).filter(is_doubted).label("doubted"),
            func.count(answers.c.id.distinct()).filter(is_doubted).label("doubts"),
        )
        .select_from(purchases.outerjoin(answers, answers.c.id == purchases.c.answer_id))
        .where(purchases.c.state != PurchaseState.RELEASED, purchases.c.created_ms > day_began)
    )
