"""The chain against the rows: each transfer of our wallets has its row, and each row its transfer.

What moves while the audit runs is allowed for: the journal is summed first, then the newest block
is taken, then rows are read, and rows that were settled after that block are looked up behind it.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Row, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.audit.explain import (
    SOURCES,
    Explained,
    Kind,
    Token,
    columns_of,
    explain,
    owners_transfers,
)
from tinybrain.payments.audit.report import CannotAudit, Finding, Report, WalletBalance
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.eip3009 import Transfer
from tinybrain.payments.ledger import journal
from tinybrain.payments.records import PaymentState, PurchaseState
from tinybrain.payments.schema import anchors, entries
from tinybrain.usdc import format_usdc

WINDOW = 20_000  # blocks whose transfers are held at once
PART = 200  # transfers whose rows are looked up at once
PAGE = 1_000
LAG_PAUSE_S = 2.0
BALANCE_LOOKS = 5
BALANCE_PAUSE_S = 0.5
MOVED = {PaymentState.SETTLED, PaymentState.REFUNDED, PurchaseState.PAID}
"""States whose money has moved on the chain."""
NOT_MOVED = {PaymentState.RELEASED, PaymentState.DEBT, PaymentState.REPAID}
Books = Mapping[str, Row[Any]]
"""The opening balance of each of our wallets, by address in lower case."""


async def opened_books(database: Database, token: Token, wallets: Iterable[str]) -> Books:
    """The books of all wallets that were ever ours.

    Raises:
        CannotAudit: That of one of `wallets` is not open, or none is.
    """
    query = select(anchors).where(
        anchors.c.network == token.network, anchors.c.asset == token.asset
    )
    async with database.read() as connection:
        books = {row.address: row for row in await connection.execute(query)}
    closed = sorted(set(wallets) - books.keys())
    if closed or not books:
        raise CannotAudit(
            f"The ledger does not know what {', '.join(closed) or 'any wallet'} held at the "
            "beginning. Start the service once: it opens the books of its wallets."
        )
    return books


async def check_chain(
    database: Database, chain: Chain, token: Token, books: Books, report: Report, *, lag_s: float
) -> None:
    """Compare transfers and balances of our wallets with the ledger.

    `lag_s` is how far a facilitator's node may be ahead of ours.

    Raises:
        PaymentServiceError: The chain could not be asked.
    """
    async with database.read() as connection:
        up_to = await connection.scalar(select(func.max(entries.c.id))) or 0
        booked = {address: await _booked(connection, address, up_to) for address in books}
        owners = await owners_transfers(connection, up_to=up_to)
    report.block = await chain.head()
    walk = _Walk(database, chain, token, books, report, up_to)
    await walk.compare(owners)
    await walk.find_rows(lag_s)
    for address, book in books.items():
        expected = book.balance + booked[address] + walk.ahead[address]
        held = await _held(chain, address, report.block, expected)
        report.wallets.append(WalletBalance(address, book.block, book.balance, expected, held))
        if held != expected:
            report.differs(
                f"wallet {address}",
                f"holds {format_usdc(held)} at block {report.block}; its opening balance and the "
                f"journal make {format_usdc(expected)}",
            )


async def _held(chain: Chain, address: str, block: int, expected: int) -> int:
    """The balance at a block. What is not as expected is looked at again.

    A node that is adding the next block may answer with that one's state.
    """
    for _ in range(BALANCE_LOOKS - 1):
        held = await chain.balance(address, block)
        if held == expected:
            return held
        await asyncio.sleep(BALANCE_PAUSE_S)
    return await chain.balance(address, block)


class _Walk:
    """Goes along the transfers of our wallets.

    `ahead` is what each wallet's transfers up to the audit's block moved and the journal, as it
    was summed, has not; only of transfers that rows explain.
    """

    def __init__(
        self,
        database: Database,
        chain: Chain,
        token: Token,
        books: Books,
        report: Report,
        up_to: int,
    ) -> None:
        self.ahead: Counter[str] = Counter()
        self._database = database
        self._chain = chain
        self._token = token
        self._books = books
        self._report = report
        self._up_to = up_to
        self._seen: set[tuple[Kind, int]] = set()

    async def compare(self, owners: Mapping[str, Counter[str]]) -> None:
        """Explain each transfer up to the audit's block."""
        first = min(book.block for book in self._books.values()) + 1
        missing = set(owners)
        for start in range(first, self._report.block + 1, WINDOW):
            end = min(start + WINDOW - 1, self._report.block)
            by_transaction: dict[str, list[Transfer]] = defaultdict(list)
            for made in await self._explain(start, end):
                by_transaction[made.transaction].append(made)
            for transaction, unexplained in by_transaction.items():
                missing.discard(transaction)
                self._check_owners(transaction, unexplained, owners)
        for transaction in sorted(missing):
            self._report.differs(
                f"transaction {transaction}", "is noted as the owner's; the chain does not show it"
            )

    async def find_rows(self, lag_s: float) -> None:
        """Find the rows that say their money moved, and whose transfer was not met."""
        missing, behind = await self._unseen(), self._report.block + 1
        deadline = time.monotonic() + lag_s
        while missing:
            head = await self._chain.head()
            await self._explain(behind, head)
            missing = [found for found in missing if (found.kind, found.row.id) not in self._seen]
            if time.monotonic() > deadline:
                break
            behind = max(behind, head + 1)  # nodes behind one address may differ
            await asyncio.sleep(LAG_PAUSE_S)
        for found in missing:
            row = found.row
            self._report.differs(
                found.subject,
                f"is {row.state}, {format_usdc(row.amount)} from {row.payer} to {row.pay_to} in "
                f"{row.transaction}; the chain does not show that transfer",
            )

    async def _explain(self, first: int, last: int) -> list[Transfer]:
        """Judge all transfers between two blocks; returns those that no row made."""
        found = await self._chain.transfers(self._books, from_block=first, to_block=last)
        moving = [made for made in found if made.value and made.sender != made.receiver]
        unexplained: list[Transfer] = []
        for start in range(0, len(moving), PART):
            part = moving[start : start + PART]
            async with self._database.read() as connection:
                rows = await explain(connection, self._token, part, up_to=self._up_to)
            for made in part:
                if (row := rows.get((made.sender, made.nonce))) is not None:
                    self._judge(made, row)
                else:
                    unexplained.append(made)
        return unexplained

    def _judge(self, made: Transfer, found: Explained) -> None:
        self._report.checked["transfers"] += 1
        self._seen.add((found.kind, found.row.id))
        if fault := _fault(made, found.row):
            self._report.differs(found.subject, fault)
            return
        effect = self._effect(made) if made.block <= self._report.block else Counter()
        for address in self._books:
            self.ahead[address] += effect[address] - found.booked[journal.wallet(address)]
        if found.row.state not in MOVED:
            self._report.under_way.append(
                Finding(
                    found.subject,
                    f"is {found.row.state}; its money moved in {made.transaction}",
                )
            )

    def _effect(self, made: Transfer) -> Counter[str]:
        """What a transfer changes in our wallets since their books were opened."""
        effect = Counter({made.receiver: made.value})
        effect[made.sender] -= made.value
        kept = {
            address: change
            for address, change in effect.items()
            if address in self._books and made.block > self._books[address].block
        }
        return Counter(kept)

    def _check_owners(
        self,
        transaction: str,
        unexplained: Collection[Transfer],
        owners: Mapping[str, Counter[str]],
    ) -> None:
        effect: Counter[str] = Counter()
        for made in unexplained:
            effect.update(self._effect(made))
        noted = owners.get(transaction, Counter())
        self._report.checked["transfers"] += len(unexplained)
        if all(effect[address] == noted[journal.wallet(address)] for address in self._books):
            return
        for made in unexplained:
            self._report.differs(
                f"transaction {transaction}",
                f"moved {format_usdc(made.value)} from {made.sender} to {made.receiver}, which no "
                f"row explains. If you made it, note it: tinybrain audit --adopt {transaction}",
            )

    async def _unseen(self) -> list[Explained]:
        missing: list[Explained] = []
        for kind, table, _ in SOURCES:
            rows = (
                select(*columns_of(table))
                .where(
                    table.c.network == self._token.network,
                    table.c.asset == self._token.asset,
                    table.c.state.in_(MOVED),
                    table.c.amount > 0,
                )
                .order_by(table.c.id)
                .limit(PAGE)
            )
            last = 0
            while True:
                async with self._database.read() as connection:
                    page = (await connection.execute(rows.where(table.c.id > last))).all()
                if not page:
                    break
                last = page[-1].id
                missing += [
                    Explained(kind, row, Counter())
                    for row in page
                    if (kind, row.id) not in self._seen
                ]
        return missing


async def _booked(connection: AsyncConnection, address: str, up_to: int) -> int:
    """What the journal says that a wallet gained."""
    account = journal.wallet(address)
    sign = case((entries.c.debit == account, 1), else_=-1)
    query = select(func.sum(sign * entries.c.amount)).where(
        (entries.c.debit == account) | (entries.c.credit == account), entries.c.id <= up_to
    )
    return int(await connection.scalar(query) or 0)


def _fault(made: Transfer, row: Row[Any]) -> str | None:
    """Where a row and its transfer do not agree."""
    if (row.pay_to, row.amount) != (made.receiver, made.value):
        return (
            f"is of {format_usdc(row.amount)} to {row.pay_to}, but the chain shows "
            f"{format_usdc(made.value)} to {made.receiver} in {made.transaction}"
        )
    if row.state in NOT_MOVED:
        return f"is {row.state}, but the chain shows its transfer in {made.transaction}"
    if row.state in MOVED and (row.transaction or "").lower() != made.transaction:
        return f"names {row.transaction}, but the chain shows its transfer in {made.transaction}"
    return None
