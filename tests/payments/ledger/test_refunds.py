"""A refund is decided once, sent like a payment, and owed until it is paid."""

import pytest

from tinybrain.payments.ledger import IllegalTransition
from tinybrain.payments.schema import payments

PAYER, OURS = "payer:0x" + "b" * 40, "wallet:0x" + "c" * 40


@pytest.fixture
async def refund(walks, books):
    """The row of a refund that waits to be sent, of an upfront payment."""
    payment = await walks.refunding()
    return (await books.rows(payments, payments.c.refund_of == payment))[0]


async def test_a_refund_turns_the_payment_around(ledger, refund):
    paid = await ledger.payment(refund.refund_of)
    assert (refund.payer, refund.pay_to) == (paid.pay_to, paid.payer)
    assert (refund.amount, refund.asset, refund.network) == (10_000, paid.asset, paid.network)
    assert (len(refund.nonce), refund.state, refund.purpose) == (66, "served", "refund")


async def test_a_settled_refund_evens_the_account(ledger, walks, books, refund):
    await walks.collect(refund.id)
    assert await walks.state(refund.refund_of) == "refunded"
    assert (await books.journal())[-1] == ("refund", PAYER, OURS, 10_000)
    assert await books.account(PAYER) == 0


async def test_a_refund_is_signed_only_while_it_is_settling(ledger, refund):
    with pytest.raises(IllegalTransition):
        await ledger.refund_signed(refund.id, valid_before=9, payload={"signature": "0x1"})
    await ledger.take([refund.id])
    await ledger.refund_signed(refund.id, valid_before=9, payload={"signature": "0x1"})
    row = await ledger.payment(refund.id)
    assert (row.valid_before, row.payload, row.nonce) == (9, {"signature": "0x1"}, refund.nonce)


async def test_a_payment_of_a_caller_is_not_ours_to_sign(ledger, walks):
    with pytest.raises(IllegalTransition):
        await ledger.refund_signed(await walks.settling(), valid_before=9, payload={})


async def test_a_refund_is_owed_until_it_is_paid(ledger, books, refund):
    await ledger.take([refund.id])
    before = await books.everything()
    with pytest.raises(IllegalTransition):
        await ledger.uncollectable(refund.id, "the wallet is empty")
    assert await books.everything() == before
    await ledger.try_again(refund.id, after_s=0, note="the wallet is empty")
    assert await ledger.take([refund.id]) == {refund.id}


async def test_a_payment_that_settles_again_is_not_refunded_twice(ledger, walks, books, refund):
    await ledger.undone(refund.refund_of)
    await walks.collect(refund.refund_of)
    refunds = await books.rows(payments, payments.c.purpose == "refund")
    assert [row.id for row in refunds] == [refund.id]
    await walks.collect(refund.id)
    await ledger.undone(refund.refund_of)
    await walks.collect(refund.refund_of)
    assert await walks.state(refund.refund_of) == "refunded"
    assert await books.account(PAYER) == 0


async def test_a_refund_undone_is_sent_again(ledger, walks, books, refund):
    await walks.collect(refund.id)
    await ledger.undone(refund.id)
    assert await books.account(PAYER) == -10_000
    await walks.collect(refund.id)
    assert await books.account(PAYER) == 0


async def test_what_was_never_collected_is_not_refunded(ledger, walks, books, refund):
    await ledger.undone(refund.refund_of)
    assert await ledger.uncollectable(refund.refund_of, "spent elsewhere") == "released"
    assert await walks.state(refund.id) == "released"
    assert await books.account(PAYER) == 0


async def test_an_authorization_whose_refund_was_dropped_is_refunded_when_it_fails_again(
    ledger, walks, books, refund, new_answer, new_payment
):
    await ledger.undone(refund.refund_of)
    await ledger.uncollectable(refund.refund_of, "not enough money")
    await ledger.begin(new_answer(2), new_payment(1, flow="upfront"))
    await walks.collect(refund.refund_of)
    await walks.fail(2)
    again = await books.rows(payments, payments.c.refund_of == refund.refund_of)
    assert [row.state for row in again] == ["served"]


async def test_a_payment_lost_after_it_was_refunded_is_owed(ledger, walks, books, refund):
    await walks.collect(refund.id)
    await ledger.undone(refund.refund_of)
    assert await ledger.uncollectable(refund.refund_of, "spent elsewhere") == "debt"
    assert await books.account(PAYER) == 10_000
