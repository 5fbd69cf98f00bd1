"""`tinybrain ledger`: what the ledger holds, for people, as JSON and as CSV. Changes nothing.

Dollars for people; atomic USDC and Unix milliseconds in JSON and CSV.
"""

import csv
import re
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinybrain.cli.service import service_settings
from tinybrain.config import ADDRESS, Settings
from tinybrain.errors import InvalidRequest, NotFound
from tinybrain.payments.books import Books, Filters, Kind, columns_of, open_existing
from tinybrain.payments.database import Database
from tinybrain.payments.receipts import Receipts
from tinybrain.usdc import format_usdc

SHOWN = {
    Kind.PAYMENTS: "claimed_ms id state purpose amount payer answer_id transaction note",
    Kind.REFUNDS: "claimed_ms id state amount pay_to refund_of transaction note",
    Kind.PURCHASES: "created_ms id state amount provider answer_id transaction note",
    Kind.TABS: "created_ms id kind state payer deposit balance held spent refunded",
    Kind.ENTRIES: "at_ms id kind debit credit amount answer_id payment_id transaction",
    Kind.ANSWERS: "created_ms id outcome price answered_by model reason error",
}
AMOUNTS = {
    *("amount", "owed", "price", "deposit", "balance", "held", "spent", "refunded"),
    *("charged", "cost", "profit"),
}
LONG_HEX = re.compile(r"(0x[0-9a-f]{4})[0-9a-f]{32,}([0-9a-f]{4})", re.IGNORECASE)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for a formula at the start of a text. Source: OWASP, CSV injection."""
PIPE_WIDTH = 200


def parse_filters(
    *,
    state: str | None,
    payer: str | None,
    answer: str | None,
    since: str | None,
    until: str | None,
) -> Filters:
    """Read what a user typed.

    Raises:
        InvalidRequest: An address or a time cannot be read.
    """
    if payer is not None and not ADDRESS.fullmatch(payer):
        raise InvalidRequest(f"{payer!r} is no address; it is 0x and 40 hexadecimal digits.")
    return Filters(
        state=state,
        payer=payer and payer.lower(),
        answer_id=answer,
        since_ms=_milliseconds(since),
        until_ms=_milliseconds(until),
    )


def parse_kind(name: str) -> Kind:
    """The kind of rows of that name.

    Raises:
        InvalidRequest: There is none.
    """
    try:
        return Kind(name)
    except ValueError:
        raise InvalidRequest(f"There are no {name!r} in a ledger, but {', '.join(Kind)}.") from None


async def list_rows(
    home: Path | None, kind: Kind, filters: Filters, *, limit: int, as_json: bool
) -> None:
    """Print the newest rows."""
    async with opened(service_settings(home)) as database:
        rows = [dict(row) async for row in Books(database).rows(kind, filters, limit=limit)]
    if as_json:
        write_json(rows)
        return
    names = SHOWN[kind].split()
    table = Table(*(name.removesuffix("_ms") for name in names), box=None)
    for row in rows:
        table.add_row(*(cell(name, row[name]) for name in names))
    console().print(table)
    if len(rows) == limit:
        sys.stderr.write(f"The newest {limit}; more with --limit, all with export.\n")


async def export_rows(home: Path | None, kind: Kind, filters: Filters, *, target: str) -> None:
    """Write all rows as CSV, oldest first, to a file or, for "-", to standard output."""
    async with opened(service_settings(home)) as database:
        rows = Books(database).rows(kind, filters, newest_first=False)
        with _output(target) as file:
            writer = csv.writer(file)
            writer.writerow(columns_of(kind))
            async for row in rows:
                writer.writerow(map(_csv_safe, row.values()))


async def print_balances(home: Path | None, *, as_json: bool) -> None:
    """Print the trial balance; for people without accounts that are even."""
    async with opened(service_settings(home)) as database:
        accounts = await Books(database).balances()
    if as_json:
        write_json([{**account._asdict(), "balance": account.balance} for account in accounts])
        return
    table = Table("account", "debit", "credit", "balance", box=None)
    for account in accounts:
        if account.balance:
            table.add_row(account.account, *map(format_usdc, (*account[1:], account.balance)))
    sums = (
        sum(account.debit for account in accounts),
        sum(account.credit for account in accounts),
        sum(account.balance for account in accounts),
    )
    table.add_row("all accounts", *map(format_usdc, sums), style="bold")
    console().print(table)


async def show_answer(home: Path | None, answer_id: str, *, as_json: bool) -> None:
    """Print the receipt of an answer with its entries in the journal.

    Raises:
        NotFound: There is no such answer.
    """
    async with opened(service_settings(home)) as database:
        receipt = await Receipts(database).receipt(answer_id)
        if receipt is None:
            raise NotFound(f"The ledger has no answer {answer_id!r}.")
        entries = Books(database).rows(
            Kind.ENTRIES, Filters(answer_id=answer_id), newest_first=False
        )
        receipt["entries"] = [dict(entry) async for entry in entries]
    if as_json:
        write_json(receipt)
        return
    table = Table("", "", box=None, show_header=False)
    for name, value in _flat(receipt):
        table.add_row(name, cell(name.rpartition(" ")[2], value, whole=True))
    console().print(table)


# --- the ledger, the screen and the file


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """The ledger of the service."""
    database = await open_existing(settings.ledger)
    try:
        yield database
    finally:
        await database.close()


def console() -> Console:
    """The terminal; wide where the output goes elsewhere."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def write_json(document: Any) -> None:
    """Print one JSON document."""
    # SQLAlchemy's names of columns are a kind of str that orjson does not take as keys.
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    sys.stdout.write(orjson.dumps(document, option=options).decode() + "\n")


def cell(name: str, value: Any, *, whole: bool = False) -> Text:
    """A value for people; sellers and payers wrote some of them, so nothing in it is obeyed."""
    if value is None:
        return Text("")
    if name in AMOUNTS:
        return Text(format_usdc(value), justify="right")
    if name.endswith("_ms") and isinstance(value, int):
        return Text(f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M:%S}")
    text = str(value)
    text = text if whole else LONG_HEX.sub(r"\1…\2", text)
    return Text("".join(char if char.isprintable() else " " for char in text))


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no time; write 2026-11-01 or 2026-11-01T12:00:00+01:00."
        ) from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _output(target: str) -> AbstractContextManager[TextIO]:
    if target == "-":
        return nullcontext(sys.stdout)
    try:
        return Path(target).open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{target} cannot be written: {error.strerror}.") from None


def _csv_safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _flat(receipt: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in receipt.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        elif isinstance(value, list):
            for number, item in enumerate(value, 1):
                yield from _flat(item, f"{prefix}{name} {number} ")
        elif value is not None:
            yield f"{prefix}{name}", value
