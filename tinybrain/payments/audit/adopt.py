"""An owner's own transfer, noted by hand so that the books explain it."""

import re

from tinybrain.errors import InvalidRequest
from tinybrain.payments.audit.chain import opened_books
from tinybrain.payments.audit.explain import Token, explain, owners_transfers
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.eip3009 import Transfer
from tinybrain.payments.ledger import Ledger

TRANSACTION = re.compile(r"0x[0-9a-f]{64}")


async def adopt(
    database: Database, ledger: Ledger, chain: Chain, token: Token, transaction: str
) -> list[Transfer]:
    """Note what a transaction moved into and out of our wallets as its owner's; returns that.

    Raises:
        InvalidRequest: A row explains it, it is noted already, or it moves nothing of ours.
        PaymentServiceError: The chain could not be asked.
    """
    books = await opened_books(database, token, ())
    made = await _transfers(chain, list(books), transaction.lower())
    async with database.read() as connection:
        rows = await explain(connection, token, made, up_to=0)
        noted = await owners_transfers(connection)
    if transaction.lower() in noted:
        raise InvalidRequest(f"{transaction} is noted already.")
    unexplained = [one for one in made if (one.sender, one.nonce) not in rows]
    if not unexplained:
        subjects = ", ".join(found.subject for found in rows.values())
        raise InvalidRequest(f"{transaction} is explained by {subjects}; there is nothing to note.")
    for one in unexplained:
        for address, incoming in ((one.receiver, True), (one.sender, False)):
            if address in books and one.block > books[address].block:
                await ledger.adopt(
                    address=address,
                    amount=one.value,
                    incoming=incoming,
                    transaction=one.transaction,
                )
    return unexplained


async def _transfers(chain: Chain, wallets: list[str], transaction: str) -> list[Transfer]:
    if not TRANSACTION.fullmatch(transaction):
        raise InvalidRequest(
            f"{transaction[:80]!r} is no transaction; it is 0x and 64 hexadecimal digits."
        )
    block = await chain.still_there(transaction)
    if block is None:
        raise InvalidRequest(f"The chain shows no transaction {transaction} that succeeded.")
    found = await chain.transfers(wallets, from_block=block, to_block=block)
    ours = [
        made
        for made in found
        if made.transaction == transaction and made.value and made.sender != made.receiver
    ]
    if not ours:
        raise InvalidRequest(f"{transaction} moved no money of {', '.join(sorted(wallets))}.")
    return ours
