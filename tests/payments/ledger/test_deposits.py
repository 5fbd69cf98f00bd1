"""What becomes of a tab when its money arrives, does not, or is taken away again."""

import pytest

from tinybrain.payments.records import NewTab
from tinybrain.payments.schema import payments

PAYER, OURS = "payer:0x" + "b" * 40, "wallet:0x" + "c" * 40


@pytest.fixture
async def closing(ledger, tab_walks, new_payment):
    """Closes a bar tab after one answer, with or without a settlement; returns the tab."""

    async def close(*, signed):
        tab = await tab_walks.opened()
        await tab_walks.spend(tab)
        settlement = new_payment(3_000, amount=10_000, purpose="tab") if signed else None
        return await ledger.close_tab(tab.id, settlement)

    return close


async def refund_of(books, payment):
    return (await books.rows(payments, payments.c.refund_of == payment))[0]


async def test_a_prepaid_deposit_that_cannot_be_collected_closes_the_tab(
    ledger, walks, new_payment, tab_walks, books
):
    tab = await tab_walks.opened("prepaid")
    await ledger.undone(tab.payment_id)
    assert await ledger.uncollectable(tab.payment_id, "cancelled") == "released"
    tab = await tab_walks.now(tab)
    assert (tab.state, tab.balance, tab.refunded, tab.note) == ("closed", 0, 50_000, "cancelled")
    assert await books.account(PAYER) == 0


async def test_a_bar_deposit_is_settled_and_the_rest_refunded(walks, closing, tab_walks, books):
    tab = await closing(signed=False)
    await walks.collect(tab.payment_id)
    refund = await refund_of(books, tab.payment_id)
    assert (refund.amount, refund.pay_to, refund.state) == (40_000, "0x" + "b" * 40, "served")
    assert (await tab_walks.now(tab)).state == "closing"
    await walks.collect(refund.id)
    tab = await tab_walks.now(tab)
    assert (tab.state, tab.spent, tab.refunded) == ("closed", 10_000, 40_000)
    assert (await books.account(PAYER), await books.account(OURS)) == (0, 10_000)


async def test_a_bar_deposit_used_up_is_settled_and_nothing_refunded(
    ledger, walks, tab_walks, books
):
    tab = await tab_walks.opened(deposit=10_000)
    await tab_walks.spend(tab)
    await ledger.close_tab(tab.id)
    await walks.collect(tab.payment_id)
    assert (await tab_walks.now(tab)).state == "closed"
    assert len(await books.rows(payments)) == 1


async def test_a_prepaid_tab_used_up_closes_without_a_refund(ledger, tab_walks, books):
    tab = await tab_walks.opened("prepaid", deposit=10_000)
    await tab_walks.spend(tab)
    assert (await ledger.close_tab(tab.id)).state == "closed"
    assert len(await books.rows(payments)) == 1
    assert await books.account(PAYER) == 0


async def test_a_settlement_that_cannot_be_collected_falls_back_on_the_deposit(
    walks, closing, tab_walks
):
    tab = await closing(signed=True)
    assert await walks.lose(tab.settlement_id) == "released"
    assert await walks.state(tab.payment_id) == "served"
    await walks.collect(tab.payment_id)
    assert (await tab_walks.now(tab)).state == "closing"


async def test_a_bar_tab_whose_money_never_comes_is_a_debt_of_what_was_used(
    ledger, walks, closing, tab_walks, books
):
    tab = await closing(signed=True)
    await walks.lose(tab.settlement_id)
    assert await walks.lose(tab.payment_id) == "debt"
    assert [row.owed for row in await ledger.debts("0x" + "b" * 40)] == [10_000]
    tab = await tab_walks.now(tab)
    assert (tab.state, tab.spent, tab.refunded) == ("closed", 10_000, 40_000)
    assert await books.account(PAYER) == 10_000


# --- reorganisations


async def test_a_settlement_undone_for_good_takes_the_deposit_back(
    ledger, walks, closing, tab_walks, books
):
    tab = await closing(signed=True)
    await walks.collect(tab.settlement_id)
    await ledger.undone(tab.settlement_id)
    await ledger.uncollectable(tab.settlement_id, "spent elsewhere")
    assert await walks.state(tab.payment_id) == "served"
    await walks.collect(tab.payment_id)
    await walks.collect((await refund_of(books, tab.payment_id)).id)
    assert (await books.account(PAYER), await books.account(OURS)) == (0, 10_000)


async def test_a_settlement_undone_after_its_deposit_was_used_elsewhere_is_a_debt(
    ledger, walks, closing, tab_walks, new_payment, new_answer
):
    tab = await closing(signed=True)
    await walks.collect(tab.settlement_id)
    await ledger.begin(new_answer(9), new_payment(2_001, amount=50_000))
    await ledger.undone(tab.settlement_id)
    assert await ledger.uncollectable(tab.settlement_id, "spent elsewhere") == "debt"
    assert await walks.state(tab.payment_id) == "claimed"


async def test_a_settlement_that_settles_again_leaves_a_new_tab_of_the_old_deposit_alone(
    ledger, walks, closing, new_payment
):
    tab = await closing(signed=True)
    await walks.collect(tab.settlement_id)
    again = await ledger.open_tab(NewTab("tab_2", "hash", "bar"), new_payment(2_001))
    await ledger.undone(tab.settlement_id)
    await walks.collect(tab.settlement_id)
    assert await walks.state(again) == "claimed"


async def test_a_refund_waits_while_the_deposit_it_gives_back_is_undone(
    ledger, walks, closing, books, clock
):
    tab = await closing(signed=False)
    await walks.collect(tab.payment_id)
    refund = (await refund_of(books, tab.payment_id)).id
    await ledger.undone(tab.payment_id)
    assert [row.id for row in await ledger.due_payments()] == [tab.payment_id]
    assert await ledger.take([refund]) == set()
    await walks.collect(tab.payment_id)
    assert await ledger.take([refund]) == {refund}


async def test_a_deposit_lost_after_its_refund_was_sent_is_owed_with_the_refund(
    ledger, walks, closing, books
):
    tab = await closing(signed=False)
    await walks.collect(tab.payment_id)
    await walks.collect((await refund_of(books, tab.payment_id)).id)
    await ledger.undone(tab.payment_id)
    assert await ledger.uncollectable(tab.payment_id, "spent elsewhere") == "debt"
    assert (await ledger.payment(tab.payment_id)).owed == 50_000
    assert await books.account(PAYER) == 50_000
