"""A payment for debts pays the oldest first, as a whole, and gives the rest back."""

import pytest

from tinybrain.errors import PaymentConflict
from tinybrain.payments.schema import payments

DEBTOR, FRIEND = "0x" + "b" * 40, "0x" + "e" * 40


@pytest.fixture
async def debts(walks):
    """Two debts of $0.01; their ids, oldest first."""
    ids = [await walks.settling(number) for number in (1, 2)]
    for payment in ids:
        await walks.lose(payment)
    return ids


async def refunds(books):
    rows = await books.rows(payments, payments.c.purpose == "refund")
    return [(row.amount, row.pay_to) for row in rows if row.refund_of]


async def test_all_that_is_owed_is_paid_and_the_rest_refunded(walks, books, debts):
    repayment = await walks.repay(amount=20_007)
    assert [await walks.state(debt) for debt in debts] == ["repaid", "repaid"]
    rows = await books.rows(payments, payments.c.repaid_by == repayment)
    assert [row.id for row in rows] == debts
    assert await refunds(books) == [(7, DEBTOR)]
    assert await books.account(f"payer:{DEBTOR}") == -7


async def test_too_little_for_two_pays_the_oldest(walks, books, debts):
    await walks.repay(amount=19_999)
    assert [await walks.state(debt) for debt in debts] == ["repaid", "debt"]
    assert await refunds(books) == [(9_999, DEBTOR)]


async def test_too_little_for_one_goes_back_as_a_whole(ledger, walks, books, debts):
    repayment = await walks.repay(amount=9_999)
    assert [await walks.state(debt) for debt in debts] == ["debt", "debt"]
    refund = (await books.rows(payments, payments.c.refund_of == repayment))[0]
    await walks.collect(refund.id)
    assert await walks.state(repayment) == "refunded"


async def test_somebody_else_may_pay(walks, books, debts):
    await walks.repay(amount=20_005, payer=FRIEND)
    assert [await walks.state(debt) for debt in debts] == ["repaid", "repaid"]
    assert await refunds(books) == [(5, FRIEND)]
    assert await books.account(f"payer:{DEBTOR}") == 0
    assert await books.account(f"payer:{FRIEND}") == -5


async def test_an_authorization_pays_debts_once(ledger, walks, debts, new_payment):
    await walks.repay(amount=10_000)
    with pytest.raises(PaymentConflict):
        await ledger.repay(new_payment(1_001), debtor=DEBTOR)


async def test_two_payments_for_one_debt_pay_it_once(ledger, walks, books, new_payment):
    await walks.debt()
    first, second = [await ledger.repay(new_payment(number), debtor=DEBTOR) for number in (11, 12)]
    await walks.collect(first)
    await walks.collect(second)
    assert await refunds(books) == [(10_000, DEBTOR)]
    assert await books.account(f"payer:{DEBTOR}") == -10_000


async def test_a_payment_for_debts_that_never_comes_leaves_them(ledger, walks, debts, new_payment):
    repayment = await ledger.repay(new_payment(11, amount=20_000), debtor=DEBTOR)
    assert await walks.lose(repayment) == "released"
    assert [await walks.state(debt) for debt in debts] == ["debt", "debt"]


@pytest.mark.parametrize("payer", [DEBTOR, FRIEND])
async def test_a_repayment_that_settles_again_is_neither_refunded_nor_counted_twice(
    ledger, walks, books, debts, payer
):
    repayment = await walks.repay(amount=20_000, payer=payer)
    await ledger.undone(repayment)
    await walks.collect(repayment)
    assert await refunds(books) == []
    assert await books.account(f"payer:{DEBTOR}") == 0
    assert await books.account(f"payer:{FRIEND}") == 0


@pytest.mark.parametrize("payer", [DEBTOR, FRIEND])
async def test_debts_whose_repayment_is_undone_for_good_are_owed_again(
    ledger, walks, books, debts, payer
):
    repayment = await walks.repay(amount=20_007, payer=payer)
    await ledger.undone(repayment)
    assert await ledger.uncollectable(repayment, "spent elsewhere") == "released"
    assert [await walks.state(debt) for debt in debts] == ["debt", "debt"]
    assert await refunds(books) == []
    assert await books.account(f"payer:{DEBTOR}") == 20_000
    assert await books.account(f"payer:{FRIEND}") == 0
