"""Rows on their own: tabs that do not add up, rows that stay open for too long, debts."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Row, ScalarSelect, Select, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.audit.journal import COLLECTED
from tinybrain.payments.audit.report import Finding, Report
from tinybrain.payments.database import Database
from tinybrain.payments.records import (
    UNSETTLED,
    ChargeState,
    PaymentState,
    PurchaseState,
    Purpose,
    TabState,
)
from tinybrain.payments.schema import answers, charges, payments, purchases, tabs
from tinybrain.usdc import format_usdc

PAGE = 1_000
EXPIRED_FOR_S = 900  # a signed row is resolved a minute or two after its authorization expired
OPEN_FOR_S = 2 * 3_600  # longer than any answer takes, or any authorization is valid


async def check_rows(database: Database, report: Report, *, now_s: float) -> None:
    """Check tabs and the age of open rows, and list debts; `now_s` is Unix seconds."""
    last = ""
    while rows := await _read(database, _tabs().where(tabs.c.id > last)):
        report.checked["tabs"] += len(rows)
        for row in rows:
            for fault in _faults(row):
                report.differs(f"tab {row.id}", fault)
        last = rows[-1].id
    async with database.read() as connection:
        await _note_stale(connection, report, now_s)
        await _note_debts(connection, report)


async def _read(database: Database, query: Select[Any]) -> Sequence[Row[Any]]:
    async with database.read() as connection:
        rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
        return rows


# --- tabs


def _tabs() -> Select[Any]:
    deposits, refunds, settlements = (payments.alias(name) for name in ("d", "r", "s"))
    return (
        select(
            tabs,
            deposits.c.amount.label("paid"),
            deposits.c.state.label("deposit_state"),
            refunds.c.amount.label("given_back"),
            settlements.c.amount.label("settlement"),
            settlements.c.state.label("settlement_state"),
            _charged(ChargeState.HELD).label("sum_held"),
            _charged(ChargeState.CAPTURED).label("sum_captured"),
        )
        .outerjoin(deposits, deposits.c.id == tabs.c.payment_id)
        .outerjoin(refunds, refunds.c.refund_of == tabs.c.payment_id)
        .outerjoin(settlements, settlements.c.id == tabs.c.settlement_id)
        .order_by(tabs.c.id)
        .limit(PAGE)
    )


def _charged(state: ChargeState) -> ScalarSelect[Any]:
    of_tab = (charges.c.tab_id == tabs.c.id) & (charges.c.state == state)
    return select(func.sum(charges.c.amount)).where(of_tab).scalar_subquery()


def _faults(row: Row[Any]) -> list[str]:
    parts = row.balance + row.held + row.spent + row.refunded
    pairs = [
        ("balance, held, spent and refunded are", parts, "its deposit", row.deposit),
        ("its deposit is", row.deposit, "the payment of it", row.paid or 0),
        ("it holds", row.held, "its open charges", int(row.sum_held or 0)),
        ("it has spent", row.spent, "its captured charges", int(row.sum_captured or 0)),
    ]
    if row.settlement_state in COLLECTED:
        pairs.append(("it has spent", row.spent, "what settled it", row.settlement))
    if row.state == TabState.CLOSED and row.deposit_state in COLLECTED:
        pairs.append(("it gave back", row.refunded, "its refund", row.given_back or 0))
    return [
        f"does not add up: {one} {format_usdc(this)}, {other} {format_usdc(that)}"
        for one, this, other, that in pairs
        if this != that
    ]


# --- age


async def _note_stale(connection: AsyncConnection, report: Report, now_s: float) -> None:
    for query in _stale(now_s):
        for name, key, state in await connection.execute(query):
            report.differs(
                f"{name} {key}",
                f"is {state} for too long; the Settlement process should have ended it",
            )


def _stale(now_s: float) -> Iterator[Select[Any]]:
    long_ago = int((now_s - OPEN_FOR_S) * 1000)
    expired = int(now_s - EXPIRED_FOR_S)
    is_refund = payments.c.purpose == Purpose.REFUND  # signed again whenever it expires
    yield select(literal("payment"), payments.c.id, payments.c.state).where(
        payments.c.state.in_(UNSETTLED),
        or_(
            ~is_refund & (payments.c.valid_before < expired),
            is_refund & (payments.c.claimed_ms < long_ago),
        ),
    )
    unsigned = purchases.c.nonce.is_(None) & (purchases.c.created_ms < long_ago)
    yield select(literal("purchase"), purchases.c.id, purchases.c.state).where(
        purchases.c.state == PurchaseState.RESERVED,
        or_(purchases.c.valid_before < expired, unsigned),
    )
    yield select(literal("answer"), answers.c.id, answers.c.outcome).where(
        answers.c.outcome == "running", answers.c.created_ms < long_ago
    )
    yield select(literal("tab"), tabs.c.id, tabs.c.state).where(
        tabs.c.state.in_([TabState.OPENING, TabState.CLOSING]), tabs.c.used_ms < long_ago
    )


async def _note_debts(connection: AsyncConnection, report: Report) -> None:
    query = select(payments).where(payments.c.state == PaymentState.DEBT).order_by(payments.c.id)
    for row in await connection.execute(query):
        report.debts.append(
            Finding(
                f"payment {row.id}", f"{row.payer} owes {format_usdc(row.owed)}: {row.note or ''}"
            )
        )
