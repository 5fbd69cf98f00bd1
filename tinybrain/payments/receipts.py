"""What the ledger tells: receipts and statistics. Reads only."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from sqlalchemy import RowMapping, func, select

from tinybrain.payments.database import Database
from tinybrain.payments.schema import answers, payments, purchases

Receipt = dict[str, Any]


class Receipts:
    """Reads answers with their payments and purchases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def receipt(self, answer_id: str) -> Receipt | None:
        """Everything about one answer, or None. Amounts are atomic USDC."""
        async with self._database.read() as connection:
            answer = (
                (await connection.execute(select(answers).where(answers.c.id == answer_id)))
                .mappings()
                .first()
            )
            if answer is None:
                return None
            paid = (
                (
                    await connection.execute(
                        select(payments).where(payments.c.answer_id == answer_id)
                    )
                )
                .mappings()
                .first()
            )
            bought = (
                (
                    await connection.execute(
                        select(purchases).where(purchases.c.answer_id == answer_id)
                    )
                )
                .mappings()
                .all()
            )
        return {
            **answer,
            "cost": sum(row["amount"] for row in bought if row["state"] != "released"),
            "payment": _pick(
                paid,
                "state",
                "note",
                "network",
                "asset",
                "payer",
                "pay_to",
                "amount",
                "transaction",
            )
            if paid
            else None,
            "purchases": [
                _pick(row, "provider", "state", "amount", "pay_to", "transaction") for row in bought
            ],
        }

    async def statistics(self, *, since_ms: int, limit: int = 10_000) -> dict[str, Any]:
        """Counts, money, and P50/P95/average latencies (ms) of the newest answers."""
        async with self._database.read() as connection:
            rows = (
                (
                    await connection.execute(
                        select(answers)
                        .where(answers.c.created_ms >= since_ms)
                        .order_by(answers.c.created_ms.desc())
                        .limit(limit)
                    )
                )
                .mappings()
                .all()
            )
            states = (
                await connection.execute(
                    select(payments.c.state, func.count(), func.sum(payments.c.amount))
                    .where(payments.c.claimed_ms >= since_ms)
                    .group_by(payments.c.state)
                )
            ).all()
            cost = await connection.scalar(
                select(func.coalesce(func.sum(purchases.c.amount), 0)).where(
                    purchases.c.created_ms >= since_ms, purchases.c.state != "released"
                )
            )
        completed = [row for row in rows if row["outcome"] == "completed"]
        return {
            "answers": _count(rows, "outcome"),
            "answered_by": _count(completed, "answered_by"),
            "escalations": _count(
                (row for row in completed if row["reason"] not in (None, "none")), "reason"
            ),
            "cost": cost,
            "payments": {
                state: {"count": count, "amount": amount} for state, count, amount in states
            },
            "latency_ms": _latencies(completed),
        }


def _pick(row: RowMapping, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _count(rows: Iterable[RowMapping], column: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row[column]] = counts.get(row[column], 0) + 1
    return counts


def _latencies(rows: Iterable[RowMapping]) -> dict[str, dict[str, Any]]:
    by_kind: dict[str, list[RowMapping]] = {}
    for row in rows:
        by_kind.setdefault(f"{row['answered_by']}/{row['mode']}", []).append(row)
    return {
        kind: {
            "count": len(group),
            "first_token": _summary([row["ttft_ms"] for row in group]),
            "total": _summary([row["total_ms"] for row in group]),
        }
        for kind, group in sorted(by_kind.items())
    }


def _summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(value for value in values if value is not None)
    if not ordered:
        return {}
    return {
        "average": round(fmean(ordered), 3),
        "p50": round(percentile(ordered, 0.50), 3),
        "p95": round(percentile(ordered, 0.95), 3),
    }


def percentile(ordered: list[float], quantile: float) -> float:
    """The value at `quantile` of an ascending list, linear between neighbours."""
    place = (len(ordered) - 1) * quantile
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
