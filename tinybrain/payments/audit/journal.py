"""Each row against the journal: has the money moved that its state implies, and no other?

As every entry must belong to a row, the balance of every account follows.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Row, Select, and_, exists, func, not_, or_, select

from tinybrain.payments.audit.report import Report
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import journal
from tinybrain.payments.records import ChargeState, PaymentState, PurchaseState, Purpose
from tinybrain.payments.schema import answers, charges, entries, payments, purchases, tabs
from tinybrain.usdc import format_usdc

PAGE = 1_000
COLLECTED = (PaymentState.SETTLED, PaymentState.REFUNDED)
UNCOLLECTABLE = (PaymentState.DEBT, PaymentState.REPAID)
UNREAD = {"payload", "requirements"}  # long, and nothing of the journal follows from them
Legs = Counter[str]
"""What each account gained, in atomic USDC."""


class _Book(NamedTuple):
    """Rows of one kind, and the entries that name them."""

    name: str
    rows: Select[Any]
    key: Column[Any]
    entry_key: Column[Any]
    entries: ColumnElement[bool]
    expected: Callable[[Row[Any], Legs], Legs]


async def check_journal(database: Database, report: Report) -> None:
    """Compare every payment, refund, purchase and charge with its entries."""
    for book in (_payments(), _purchases(), _charges()):
        async for rows, moved in _pages(database, book):
            report.checked[f"{book.name}s"] += len(rows)
            for row in rows:
                key = getattr(row, book.key.name)
                _compare(report, f"{book.name} {key}", row, moved[key], book.expected)
    await _check_orphans(database, report)


async def _pages(
    database: Database, book: _Book
) -> AsyncIterator[tuple[Sequence[Row[Any]], dict[Any, Legs]]]:
    """Rows with what their entries moved, both of one moment."""
    last: Any = None
    while True:
        rows_after = book.rows if last is None else book.rows.where(book.key > last)
        entries_after = select(entries).where(book.entries)
        if last is not None:
            entries_after = entries_after.where(book.entry_key > last)
        async with database.read() as connection:
            page = rows_after.order_by(book.key).limit(PAGE)
            rows = (await connection.execute(page)).all()
            if not rows:
                return
            last = getattr(rows[-1], book.key.name)
            made = (await connection.execute(entries_after.where(book.entry_key <= last))).all()
        moved: dict[Any, Legs] = defaultdict(Counter)
        for entry in made:
            legs = moved[getattr(entry, book.entry_key.name)]
            _move(legs, entry.debit, entry.credit, entry.amount)
        yield rows, moved


def _compare(
    report: Report,
    subject: str,
    row: Row[Any],
    found: Legs,
    expected_of: Callable[[Row[Any], Legs], Legs],
) -> None:
    expected = expected_of(row, found)
    wrong = [
        f"{account} by {format_usdc(found[account])}, not {format_usdc(expected[account])}"
        for account in sorted(found.keys() | expected.keys())
        if found[account] != expected[account]
    ]
    if wrong:
        report.differs(subject, f"is {row.state}, but the journal changes {'; '.join(wrong)}")


def _move(legs: Legs, debit: str, credit: str, amount: int) -> None:
    legs[debit] += amount
    legs[credit] -= amount


# --- what a row's state implies


def _payments() -> _Book:
    refunds = payments.alias("refunds")
    columns = [column for column in payments.c if column.name not in UNREAD]
    debts = payments.alias("debts")
    repaid = select(func.sum(debts.c.owed)).where(debts.c.repaid_by == payments.c.id)
    rows = (
        select(
            *columns,
            answers.c.outcome,
            refunds.c.amount.label("refunded"),
            repaid.scalar_subquery().label("repaid"),
        )
        .outerjoin(answers, answers.c.id == payments.c.answer_id)
        .outerjoin(refunds, refunds.c.refund_of == payments.c.id)
    )
    named = entries.c.payment_id.is_not(None)
    return _Book("payment", rows, payments.c.id, entries.c.payment_id, named, _of_payment)


def _of_payment(row: Row[Any], found: Legs) -> Legs:
    legs: Legs = Counter()
    collected = row.state in COLLECTED
    if row.purpose == Purpose.REFUND:
        if collected:
            _move(legs, journal.payer(row.pay_to), journal.wallet(row.payer), row.amount)
        return legs
    if row.purpose == Purpose.ANSWER and _sold(row, found):
        _move(legs, journal.payer(row.payer), journal.REVENUE, row.amount)
    if collected:
        _move(legs, journal.wallet(row.pay_to), journal.payer(row.payer), row.amount)
    if row.repaid:
        _move(legs, journal.payer(row.payer), journal.payer(row.debtor), int(row.repaid))
    return legs


def _sold(row: Row[Any], found: Legs) -> bool:
    if row.state in UNCOLLECTABLE:
        return True
    if row.state == PaymentState.RELEASED or row.refunded is not None:
        return False
    if row.flow == "authorization":
        return bool(row.state != PaymentState.CLAIMED)
    if row.outcome == "running":
        return False
    # Upfront, and its answer has ended: once settled, one that was not sold has a refund; until
    # then the row does not tell, and the journal is believed.
    return row.state == PaymentState.SETTLED or found[journal.REVENUE] != 0


def _purchases() -> _Book:
    named = entries.c.purchase_id.is_not(None)
    return _Book(
        "purchase", select(purchases), purchases.c.id, entries.c.purchase_id, named, _of_purchase
    )


def _of_purchase(row: Row[Any], _: Legs) -> Legs:
    legs: Legs = Counter()
    if row.state == PurchaseState.PAID:
        _move(legs, journal.COST, journal.wallet(row.payer), row.amount)
    return legs


def _charges() -> _Book:
    rows = select(charges, tabs.c.payer).outerjoin(tabs, tabs.c.id == charges.c.tab_id)
    return _Book(
        "charge", rows, charges.c.answer_id, entries.c.answer_id, _of_a_charge(), _of_charge
    )


def _of_charge(row: Row[Any], _: Legs) -> Legs:
    legs: Legs = Counter()
    if row.state == ChargeState.CAPTURED:
        _move(legs, journal.payer(row.payer), journal.REVENUE, row.amount)
    return legs


# --- entries without a row


def _of_a_charge() -> ColumnElement[bool]:
    return and_(
        entries.c.payment_id.is_(None), entries.c.purchase_id.is_(None), entries.c.kind != "owner"
    )


async def _check_orphans(database: Database, report: Report) -> None:
    lost = or_(
        _names_nothing(entries.c.payment_id, payments.c.id),
        _names_nothing(entries.c.purchase_id, purchases.c.id),
        _of_a_charge() & not_(exists().where(charges.c.answer_id == entries.c.answer_id)),
    )
    async with database.read() as connection:
        found = await connection.execute(select(entries).where(lost).order_by(entries.c.id))
        for entry in found:
            row = _row_of(entry)
            report.differs(
                f"entry {entry.id}",
                f"({entry.kind} of {format_usdc(entry.amount)}) belongs to {row}, which is gone",
            )


def _names_nothing(named: Column[Any], key: Column[Any]) -> ColumnElement[bool]:
    return named.is_not(None) & not_(exists().where(key == named))


def _row_of(entry: Row[Any]) -> str:
    if entry.payment_id is not None:
        return f"payment {entry.payment_id}"
    if entry.purchase_id is not None:
        return f"purchase {entry.purchase_id}"
    return f"charge {entry.answer_id}"
