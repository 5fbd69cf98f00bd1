"""Each row against the journal: has all the money moved that its state implies, and none besides?

Since every entry belongs to a row, the balance of every account follows.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Row, Select, and_, exists, not_, or_, select

from tinybrain.payments.audit.report import Report
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import journal
from tinybrain.payments.records import ChargeState, PaymentState, PurchaseState, Purpose
from tinybrain.payments.schema import answers, charges, entries, payments, purchases, tabs
from tinybrain.usdc import format_usdc

PAGE = 1_000
COLLECTED = (PaymentState.SETTLED, PaymentState.REFUNDED)
SOLD = (PaymentState.SERVED, *COLLECTED, PaymentState.SETTLING)
OWED = (PaymentState.DEBT, PaymentState.REPAID)
Legs = Counter[str]
"""What each account gained, in atomic USDC."""


class _Book(NamedTuple):
    """Rows of one kind, and where the journal names them."""

    name: str
    query: Select[Any]
    key: Column[Any]
    entries: ColumnElement[bool]
    entry_key: Column[Any]
    expected: Callable[[Row[Any], Legs], Legs]


async def check_journal(database: Database, report: Report) -> None:
    """Compare every payment, refund, purchase and charge with its entries."""
    for book in (_payments(), _purchases(), _charges()):
        async for rows, legs in _pages(database, book):
            report.checked[f"{book.name}s"] += len(rows)
            for row in rows:
                key = getattr(row, book.key.name)
                _compare(report, f"{book.name} {key}", row, legs[key], book.expected)
    await _check_orphans(database, report)


async def _pages(
    database: Database, book: _Book
) -> AsyncIterator[tuple[Sequence[Row[Any]], dict[Any, Legs]]]:
    """Rows with their entries, both of one moment."""
    query = book.query.order_by(book.key).limit(PAGE)
    after: ColumnElement[bool] | None = None
    while True:
        async with database.read() as connection:
            page = query if after is None else query.where(after)
            rows = (await connection.execute(page)).all()
            if not rows:
                return
            last = getattr(rows[-1], book.key.name)
            of_rows = [book.entries, book.entry_key <= last]
            if after is not None:
                of_rows.append(book.entry_key >= getattr(rows[0], book.key.name))
            moved = (await connection.execute(select(entries).where(*of_rows))).all()
        legs: dict[Any, Legs] = defaultdict(Counter)
        for entry in moved:
            _move(legs[getattr(entry, book.entry_key.name)], entry.debit, entry.credit, entry.amount)
        yield rows, legs
        after = book.key > last


def _compare(
    report: Report,
    subject: str,
    row: Row[Any],
    found: Legs,
    expected_of: Callable[[Row[Any], Legs], Legs],
) -> None:
    expected = expected_of(row, found)
    wrong = [name for name in sorted(found | expected) if found[name] != expected[name]]
    wrong += [name for name in sorted(expected) if name not in wrong and found[name] != expected[name]]
    if wrong:
        told = ", ".join(
            f"{name} by {format_usdc(found[name])} and not {format_usdc(expected[name])}"
            for name in wrong
        )
        report.differs(subject, f"is {row.state}, but the journal changed {told}")
