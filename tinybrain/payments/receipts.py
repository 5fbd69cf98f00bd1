"""What the ledger tells: receipts and statistics. Reads only."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from sqlalchemy import RowMapping, Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.database import Database
from tinybrain.payments.records import PaymentState, PurchaseState, Purpose
from tinybrain.payments.schema import answers, charges, entries, payments, purchases

Receipt = dict[str, Any]
PAYMENT = (
    *("state", "flow", "note", "network", "asset", "payer", "pay_to", "amount"),
    *("transaction", "block"),
)
PURCHASE = ("provider", "state", "amount", "pay_to", "transaction")
REFUND = ("state", "amount", "transaction")
INTERNAL = ("checkpoint",)  # tells how the service is set up, not what the caller got


class Receipts:
    """Reads answers with their payments, charges and purchases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def receipt(self, answer_id: str) -> Receipt | None:
        """Everything about one answer, or None. Amounts are atomic USDC.

        `charged` is what it was sold for by now, `cost` what was or may still be spent on it.
        """
        async with self._database.read() as connection:
            answer = await _first(connection, select(answers).where(answers.c.id == answer_id))
            if answer is None:
                return None
            made = select(purchases).where(purchases.c.answer_id == answer_id)
            bought = (await connection.execute(made)).mappings().all()
            charged = await _sum(connection, _sales().where(entries.c.answer_id == answer_id))
            payment = await _payment(connection, answer_id)
            tab = await connection.scalar(
                select(charges.c.tab_id).where(charges.c.answer_id == answer_id)
            )
        cost = sum(row["amount"] for row in bought if row["state"] != PurchaseState.RELEASED)
        return {
            **{name: value for name, value in answer.items() if name not in INTERNAL},
            "charged": charged,
            "cost": cost,
            "profit": charged - cost,
            "payment": payment,
            "tab": tab,
            "purchases": [_pick(row, PURCHASE) for row in bought],
        }

    async def statistics(self, *, since_ms: int, limit: int = 10_000) -> dict[str, Any]:
        """Counts, money, and P50/P95/average latencies (ms) of the newest answers.

        Money is of the time since; debts are all that are owed, however old.
        """
        newest = (
            select(answers)
            .where(answers.c.created_ms >= since_ms)
            .order_by(answers.c.created_ms.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(newest)).mappings().all()
            money = await _money(connection, since_ms)
        completed = [row for row in rows if row["outcome"] == "completed"]
        return {
            "answers": _count(rows, "outcome"),
            "answered_by": _count(completed, "answered_by"),
            "escalations": _count(
                (row for row in completed if row["reason"] not in (None, "none")), "reason"
            ),
            **money,
            "latency_ms": _latencies(completed),
        }


async def _money(connection: AsyncConnection, since_ms: int) -> dict[str, Any]:
    revenue = await _sum(connection, _sales().where(entries.c.at_ms >= since_ms))
    spent = select(func.sum(purchases.c.amount)).where(
        purchases.c.created_ms >= since_ms, purchases.c.state != PurchaseState.RELEASED
    )
    cost = await _sum(connection, spent)
    by_state = (
        select(payments.c.state, func.count(), func.sum(payments.c.amount))
        .where(payments.c.claimed_ms >= since_ms)
        .group_by(payments.c.state)
    )
    is_refund = payments.c.purpose == Purpose.REFUND
    debts = select(func.count(), func.sum(payments.c.owed)).where(
        payments.c.state == PaymentState.DEBT
    )
    return {
        "revenue": revenue,
        "cost": cost,
        "profit": revenue - cost,
        "payments": await _totals(connection, by_state.where(~is_refund)),
        "refunds": await _totals(connection, by_state.where(is_refund)),
        "debts": _total(*(await connection.execute(debts)).one()),
    }


async def _payment(connection: AsyncConnection, answer_id: str) -> dict[str, Any] | None:
    row = await _first(connection, select(payments).where(payments.c.answer_id == answer_id))
    if row is None:
        return None
    refund = await _first(connection, select(payments).where(payments.c.refund_of == row["id"]))
    return _pick(row, PAYMENT) | {"refund": _pick(refund, REFUND) if refund else None}


def _sales() -> Select[Any]:
    """The sum of what was sold and not taken back."""
    sign = case((entries.c.kind == "sale", 1), else_=-1)
    return select(func.sum(sign * entries.c.amount)).where(entries.c.kind.in_(["sale", "reversal"]))


async def _totals(connection: AsyncConnection, query: Select[Any]) -> dict[str, dict[str, int]]:
    rows = (await connection.execute(query)).all()
    return {state: _total(count, amount) for state, count, amount in rows}


def _total(count: int, amount: Any) -> dict[str, int]:
    return {"count": count, "amount": int(amount or 0)}  # PostgreSQL sums to Decimal


async def _sum(connection: AsyncConnection, query: Select[Any]) -> int:
    return int(await connection.scalar(query) or 0)


async def _first(connection: AsyncConnection, query: Select[Any]) -> RowMapping | None:
    row: RowMapping | None = (await connection.execute(query)).mappings().first()
    return row


def _pick(row: RowMapping, names: Iterable[str]) -> dict[str, Any]:
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
