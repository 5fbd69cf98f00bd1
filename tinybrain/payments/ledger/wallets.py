"""The books of our own wallets: transactions kept before they are sent, and opening balances."""

from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tinybrain.payments.database import Database
from tinybrain.payments.ledger import journal
from tinybrain.payments.ledger.part import LedgerPart, change
from tinybrain.payments.schema import anchors, transactions
from tinybrain.payments.transactions import SignedTransaction


class TransactionBook:
    """Keeps a hot wallet's transactions; see `wallet.TransactionStore`."""

    def __init__(self, database: Database, network: str) -> None:
        self._database = database
        self._network = network

    async def record(self, transaction: SignedTransaction) -> None:
        """Keep a signed transaction before it is sent, perhaps once more after its nonce closed."""
        async with self._database.write() as connection:
            known = self._of(transaction.wallet) & (transactions.c.hash == transaction.hash)
            if await change(connection, transactions, known, state="sent"):
                return
            await connection.execute(
                insert(transactions).values(
                    network=self._network,
                    wallet=transaction.wallet,
                    nonce=transaction.nonce,
                    hash=transaction.hash,
                    raw=transaction.raw,
                    destination=transaction.to,
                    data=transaction.data,
                    gas=transaction.gas,
                    max_fee=transaction.max_fee,
                    priority_fee=transaction.priority_fee,
                    state="sent",
                    created_ms=transaction.created_ms,
                )
            )

    async def unmined(self, wallet: str) -> list[SignedTransaction]:
        """Those of a wallet whose nonces are open, in the order they were recorded."""
        query = (
            select(transactions)
            .where(self._of(wallet), transactions.c.state == "sent")
            .order_by(transactions.c.id)
        )
        async with self._database.read() as connection:
            return [_signed(row) for row in (await connection.execute(query)).all()]

    async def mined(self, wallet: str, nonce: int, tx_hash: str | None) -> None:
        """A nonce is closed: by the transaction of that hash, or (None) by none of ours."""
        async with self._database.write() as connection:
            same = self._of(wallet) & (transactions.c.nonce == nonce)
            await change(connection, transactions, same, state="replaced")
            await change(
                connection, transactions, same & (transactions.c.hash == tx_hash), state="mined"
            )

    def _of(self, wallet: str) -> ColumnElement[bool]:
        return (transactions.c.network == self._network) & (transactions.c.wallet == wallet)


class Wallets(LedgerPart):
    """What our addresses held when the book was opened, and what their owner moves by hand."""

    async def open_book(
        self, *, network: str, asset: str, address: str, block: int, balance: int
    ) -> None:
        """Note an opening balance; the first one stays."""
        values = {"network": network, "asset": asset, "address": address}
        async with self._database.write() as connection:
            if await _anchor(connection, **values) is None:
                await connection.execute(
                    insert(anchors).values(
                        **values, block=block, balance=balance, created_ms=self.now_ms()
                    )
                )

    async def opened(self, *, network: str, asset: str, address: str) -> Row[Any] | None:
        """The opening balance of an address, if its book is open."""
        async with self._database.read() as connection:
            return await _anchor(connection, network=network, asset=asset, address=address)

    async def adopt(self, *, address: str, amount: int, incoming: bool, transaction: str) -> None:
        """Note a transfer that the owner made by hand."""
        ours = journal.wallet(address)
        debit, credit = (ours, journal.OWNER) if incoming else (journal.OWNER, ours)
        async with self._database.write() as connection:
            await journal.post(
                connection,
                "owner",
                debit=debit,
                credit=credit,
                amount=amount,
                at_ms=self.now_ms(),
                transaction=transaction,
            )


async def _anchor(
    connection: AsyncConnection, *, network: str, asset: str, address: str
) -> Row[Any] | None:
    query = select(anchors).where(
        anchors.c.network == network, anchors.c.asset == asset, anchors.c.address == address
    )
    return (await connection.execute(query)).first()


def _signed(row: Row[Any]) -> SignedTransaction:
    return SignedTransaction(
        wallet=row.wallet,
        nonce=row.nonce,
        hash=row.hash,
        raw=row.raw,
        to=row.destination,
        data=row.data,
        gas=row.gas,
        max_fee=row.max_fee,
        priority_fee=row.priority_fee,
        created_ms=row.created_ms,
    )
