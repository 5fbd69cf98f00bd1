"""Every movement leaves one account and enters another, or is not written at all."""

import pytest

from tinybrain.errors import LedgerUnavailable
from tinybrain.payments.ledger import journal
from tinybrain.payments.schema import entries

MOVE = {"debit": journal.wallet("0xa"), "credit": journal.payer("0xb"), "at_ms": 1}


async def test_an_entry_names_both_accounts_and_what_it_is_about(database, books):
    about = {
        "answer_id": "ans_1",
        "payment_id": 1,
        "purchase_id": 2,
        "tab_id": "tab_1",
        "transaction": "0x1",
    }
    async with database.write() as connection:
        await journal.post(connection, "collection", amount=5, **MOVE, **about)
    row = (await books.rows(entries))[0]._mapping
    expected = {"kind": "collection", "debit": "wallet:0xa", "credit": "payer:0xb", "amount": 5}
    assert dict(row) == {"id": 1, "at_ms": 1} | expected | about


async def test_nothing_is_written_if_nothing_moves(database, books):
    async with database.write() as connection:
        await journal.post(connection, "sale", amount=0, **MOVE)
    assert await books.journal() == []


async def test_a_movement_backwards_is_refused_by_the_database(database, books):
    with pytest.raises(LedgerUnavailable):
        async with database.write() as connection:
            await journal.post(connection, "sale", amount=-1, **MOVE)
    assert await books.journal() == []


async def test_what_was_sold_is_less_what_was_reversed(database):
    about = {"payment_id": 1, **MOVE}
    async with database.write() as connection:
        await journal.post(connection, "sale", amount=5, **about)
        await journal.post(connection, "collection", amount=5, **about)
        assert await journal.sold(connection, 1) == 5
        await journal.post(connection, "reversal", amount=5, **about)
        assert await journal.sold(connection, 1) == 0
        assert await journal.sold(connection, 2) == 0
