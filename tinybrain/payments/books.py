"""The ledger's books, for its owner: rows by page and the trial balance. Reads only.

Rows have named columns: never signatures, signed payloads or hashes of tokens.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    RowMapping,
    Table,
    func,
    literal_column,
    make_url,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.exc import ArgumentError

from tinybrain.errors import ConfigError, InvalidRequest
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import journal
from tinybrain.payments.records import PaymentState, PurchaseState, Purpose, TabState
from tinybrain.payments.schema import answers, charges, entries, payments, purchases, tabs

PAGE = 500


class Kind(StrEnum):
    """What is kept in the ledger."""

    PAYMENTS = "payments"
    REFUNDS = "refunds"
    PURCHASES = "purchases"
    TABS = "tabs"
    ENTRIES = "entries"
    ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows; `payer` in lower case, times in Unix milliseconds, `until_ms` excluded."""

    state: str | None = None
    payer: str | None = None
    answer_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


NO_FILTERS = Filters()


class AccountBalance(NamedTuple):
    """What was debited to and credited from an account, in atomic USDC."""

    account: str
    debit: int
    credit: int

    @property
    def balance(self) -> int:
        """What we hold there, or are owed; below zero what we earned, or owe."""
        return self.debit - self.credit


async def open_existing(url: str) -> Database:
    """Open the ledger that a SQLAlchemy URL names, without creating one.

    Raises:
        ConfigError: There is no such ledger, or this version cannot use it.
        LedgerUnavailable: It cannot be opened.
    """
    _require_file(url)
    return await Database.open(url, migrate=False)


def _require_file(url: str) -> None:
    try:
        parsed = make_url(url)
    except ArgumentError:
        return  # Database says what is wrong with it
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return
    path = Path(parsed.database)
    if not path.is_file() or not path.stat().st_size:
        raise ConfigError(
            f"There is no ledger at {path}. Name it with TINYBRAIN_LEDGER_URL or TINYBRAIN_HOME; "
            "the service creates it when it starts."
        )


class Books:
    """Lists what the ledger holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rows(
        self,
        kind: Kind,
        filters: Filters = NO_FILTERS,
        *,
        newest_first: bool = True,
        limit: int | None = None,
    ) -> AsyncIterator[RowMapping]:
        """Yield rows in the order of their times; reads them page by page.

        Raises:
            InvalidRequest: Rows of this kind have no such state.
        """
        shelf = SHELVES[kind]
        place = tuple_(shelf.time, shelf.key)
        order = [column.desc() if newest_first else column for column in (shelf.time, shelf.key)]
        query = (
            select(*(shelf.table.c[name] for name in shelf.columns))
            .where(*shelf.conditions(kind, filters))
            .order_by(*order)
        )
        page, left = query, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            async with self._database.read() as connection:
                rows = (await connection.execute(page.limit(size))).mappings().all()
            for row in rows:
                yield row
            if len(rows) < size:
                return
            last = tuple_(rows[-1][shelf.time.name], rows[-1][shelf.key.name])
            page = query.where(place < last if newest_first else place > last)
            left = None if left is None else left - size

    async def balances(self) -> list[AccountBalance]:
        """The trial balance: every account of the journal, in alphabetical order."""
        zero: ColumnElement[int] = literal_column("0")
        debits = select(
            entries.c.debit.label("account"), entries.c.amount.label("debit"), zero.label("credit")
        )
        credits_ = select(entries.c.credit, zero, entries.c.amount)
        legs = union_all(debits, credits_).subquery().c
        account = legs.account
        query = select(account, func.sum(legs.debit), func.sum(legs.credit)).group_by(account)
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(account))).all()
        return [AccountBalance(name, int(debit), int(credit)) for name, debit, credit in rows]


# --- where each kind is, and how it is searched


class _Shelf(NamedTuple):
    table: Table
    columns: tuple[str, ...]
    time: Column[Any]
    key: Column[Any]
    state: Column[Any] | None
    states: Iterable[str]

    def conditions(self, kind: Kind, filters: Filters) -> list[ColumnElement[bool]]:
        conditions = _purpose(kind)
        if filters.state is not None:
            if self.state is None or filters.state not in self.states:
                known = ", ".join(self.states) or "none"
                raise InvalidRequest(
                    f"{kind} have no state {filters.state!r}; their states are: {known}."
                )
            conditions.append(self.state == filters.state)
        if filters.payer is not None:
            conditions.append(_of_payer(kind, filters.payer))
        if filters.answer_id is not None:
            conditions.append(_of_answer(kind, filters.answer_id))
        if filters.since_ms is not None:
            conditions.append(self.time >= filters.since_ms)
        if filters.until_ms is not None:
            conditions.append(self.time < filters.until_ms)
        return conditions


PAYMENT_COLUMNS = (
    *("id", "claimed_ms", "updated_ms", "purpose", "flow", "state", "amount", "owed"),
    *("payer", "pay_to", "debtor", "answer_id", "tab_id", "refund_of"),
    *("network", "asset", "transaction", "block", "final", "attempts", "valid_before", "note"),
)
SHELVES = {
    **dict.fromkeys(
        (Kind.PAYMENTS, Kind.REFUNDS),
        _Shelf(
            payments,
            PAYMENT_COLUMNS,
            payments.c.claimed_ms,
            payments.c.id,
            payments.c.state,
            tuple(PaymentState),
        ),
    ),
    Kind.PURCHASES: _Shelf(
        purchases,
        (
            *("id", "created_ms", "updated_ms", "state", "amount", "provider", "payer", "pay_to"),
            *("answer_id", "network", "asset", "transaction", "valid_before", "note"),
        ),
        purchases.c.created_ms,
        purchases.c.id,
        purchases.c.state,
        tuple(PurchaseState),
    ),
    Kind.TABS: _Shelf(
        tabs,
        (
            *("id", "created_ms", "used_ms", "kind", "state", "payer", "deposit", "balance"),
            *("held", "spent", "refunded", "payment_id", "settlement_id", "spendable_until"),
            "note",
        ),
        tabs.c.created_ms,
        tabs.c.id,
        tabs.c.state,
        tuple(TabState),
    ),
    Kind.ENTRIES: _Shelf(
        entries,
        (
            *("id", "at_ms", "kind", "debit", "credit", "amount"),
            *("answer_id", "payment_id", "purchase_id", "tab_id", "transaction"),
        ),
        entries.c.at_ms,
        entries.c.id,
        None,
        (),
    ),
    Kind.ANSWERS: _Shelf(
        answers,
        (
            *("id", "created_ms", "credential", "mode", "outcome", "price", "answered_by"),
            *("model", "reason", "rule", "fallback", "perplexity", "confidence"),
            *("prompt_tokens", "completion_tokens", "ttft_ms", "total_ms", "error"),
        ),
        answers.c.created_ms,
        answers.c.id,
        answers.c.outcome,
        ("running", "completed", "aborted", "failed"),
    ),
}


def _purpose(kind: Kind) -> list[ColumnElement[bool]]:
    if kind is Kind.PAYMENTS:
        return [payments.c.purpose != Purpose.REFUND]
    if kind is Kind.REFUNDS:
        return [payments.c.purpose == Purpose.REFUND]
    return []


def _of_payer(kind: Kind, payer: str) -> ColumnElement[bool]:
    match kind:
        case Kind.PAYMENTS:
            return or_(payments.c.payer == payer, payments.c.debtor == payer)
        case Kind.REFUNDS:
            return payments.c.pay_to == payer
        case Kind.PURCHASES:
            return purchases.c.payer == payer
        case Kind.TABS:
            return tabs.c.payer == payer
        case Kind.ENTRIES:
            accounts = [journal.payer(payer), journal.wallet(payer)]
            return or_(entries.c.debit.in_(accounts), entries.c.credit.in_(accounts))
        case Kind.ANSWERS:
            paid = select(payments.c.answer_id).where(payments.c.payer == payer)
            charged = select(charges.c.answer_id).join(tabs).where(tabs.c.payer == payer)
            return or_(answers.c.id.in_(paid), answers.c.id.in_(charged))


def _of_answer(kind: Kind, answer_id: str) -> ColumnElement[bool]:
    match kind:
        case Kind.PAYMENTS:
            return payments.c.answer_id == answer_id
        case Kind.REFUNDS:
            paid = payments.alias("paid")
            return payments.c.refund_of.in_(select(paid.c.id).where(paid.c.answer_id == answer_id))
        case Kind.PURCHASES:
            return purchases.c.answer_id == answer_id
        case Kind.TABS:
            return tabs.c.id.in_(select(charges.c.tab_id).where(charges.c.answer_id == answer_id))
        case Kind.ENTRIES:
            return entries.c.answer_id == answer_id
        case Kind.ANSWERS:
            return answers.c.id == answer_id


def columns_of(kind: Kind) -> tuple[str, ...]:
    """The names of what is told of such rows, in order."""
    return SHELVES[kind].columns
