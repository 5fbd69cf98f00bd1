"""What the hot wallet signed is kept; a book is opened once."""

import pytest

from tinybrain.payments.ledger import TransactionBook
from tinybrain.payments.schema import transactions
from tinybrain.payments.transactions import SignedTransaction

WALLET, NETWORK = "0x" + "9" * 40, "eip155:84532"


@pytest.fixture
def book(database):
    return TransactionBook(database, NETWORK)


def signed(nonce, version=1, **changes):
    values = {
        "wallet": WALLET,
        "nonce": nonce,
        "hash": f"0x{nonce:032x}{version:032x}",
        "raw": "0x02",
        "to": "0x" + "a" * 40,
        "data": "0x",
        "gas": 21_000,
        "max_fee": 2,
        "priority_fee": 1,
        "created_ms": 1,
    }
    return SignedTransaction(**(values | changes))


async def test_a_transaction_is_kept_as_it_was_signed_and_once(book):
    await book.record(signed(1))
    await book.record(signed(1))
    assert await book.unmined(WALLET) == [signed(1)]


async def test_unmined_transactions_come_in_the_order_of_their_recording(book):
    sent = [signed(5), signed(4), signed(5, version=2)]
    for transaction in sent:
        await book.record(transaction)
    assert await book.unmined(WALLET) == sent


async def test_a_mined_transaction_closes_its_nonce_for_its_other_versions(book, books):
    for transaction in (signed(1), signed(1, version=2), signed(2)):
        await book.record(transaction)
    await book.mined(WALLET, 1, signed(1, version=2).hash)
    assert [row.state for row in await books.rows(transactions)] == ["replaced", "mined", "sent"]
    assert await book.unmined(WALLET) == [signed(2)]


async def test_a_nonce_used_by_none_of_ours_is_closed_too(book, books):
    await book.record(signed(1))
    await book.mined(WALLET, 1, None)
    assert [row.state for row in await books.rows(transactions)] == ["replaced"]


async def test_another_wallet_or_network_has_its_own_book(book, database):
    await book.record(signed(1))
    assert await book.unmined("0x" + "8" * 40) == []
    assert await TransactionBook(database, "eip155:8453").unmined(WALLET) == []


async def test_a_book_is_opened_once(ledger):
    address = {"network": NETWORK, "asset": "0x" + "a" * 40, "address": WALLET}
    assert await ledger.opened(**address) is None
    await ledger.open_book(**address, block=5, balance=100)
    await ledger.open_book(**address, block=6, balance=200)
    row = await ledger.opened(**address)
    assert (row.block, row.balance) == (5, 100)


async def test_what_the_owner_moves_by_hand_is_in_the_journal(ledger, books):
    await ledger.adopt(address=WALLET, amount=500, incoming=True, transaction="0x1")
    await ledger.adopt(address=WALLET, amount=200, incoming=False, transaction="0x2")
    assert await books.journal() == [
        ("owner", f"wallet:{WALLET}", "owner", 500),
        ("owner", "owner", f"wallet:{WALLET}", 200),
    ]
    assert await books.account(f"wallet:{WALLET}") == 300
