"""Opens the books of our wallets: what each held before the ledger's first movement.

`tinybrain audit` compares from there on.
"""

from sqlalchemy import func, select

from tinybrain.config import Settings
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.refunding import treasury_address
from tinybrain.payments.schema import payments, purchases

BEFORE_FIRST_ROW_S = 60  # our clock and the chain's may differ


async def open_books(settings: Settings, database: Database, ledger: Ledger, chain: Chain) -> None:
    """Note the balance of the paid address and of the treasury, if its book is not open yet.

    Raises:
        PaymentServiceError: The chain could not be asked; nothing was noted for the rest.
    """
    wallets = {settings.pay_to, treasury_address(settings)}
    for address in {wallet.lower() for wallet in wallets if wallet}:
        book = {
            "network": settings.network,
            "asset": settings.token.address.lower(),
            "address": address,
        }
        if await ledger.opened(**book) is None:
            block = await _first_block(database, chain)
            balance = await chain.balance(address, block)
            await ledger.open_book(**book, block=block, balance=balance)


async def _first_block(database: Database, chain: Chain) -> int:
    """The newest block that is older than every row."""
    first_ms = await _first_row_ms(database)
    if first_ms is None:
        return await chain.head()
    return await chain.block_before(first_ms // 1000 - BEFORE_FIRST_ROW_S)


async def _first_row_ms(database: Database) -> int | None:
    async with database.read() as connection:
        times = [
            await connection.scalar(select(func.min(column)))
            for column in (payments.c.claimed_ms, purchases.c.created_ms)
        ]
    return min((time_ms for time_ms in times if time_ms is not None), default=None)
