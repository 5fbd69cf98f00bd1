"""A tab is opened once, closed once, and says at every moment what is left."""

import pytest

from tinybrain.errors import DebtOwed, PaymentConflict, TooManyUnsettled, Unauthorized
from tinybrain.payments.ledger import IllegalTransition
from tinybrain.payments.records import NewTab
from tinybrain.payments.schema import payments, tabs

OTHER = "0x" + "e" * 40


async def settlement_of(tab, new_payment, **changes):
    return new_payment(3_000, **{"amount": tab.spent, "purpose": "tab"} | changes)


async def test_a_bar_tab_is_open_at_once_and_a_prepaid_one_when_it_is_settled(
    ledger, tab_walks, walks, new_payment
):
    assert (await tab_walks.opened("bar")).state == "open"
    deposit = await ledger.open_tab(NewTab("tab_1", "hash", "prepaid"), new_payment(1))
    assert (await ledger.tab("hash")).state == "opening"
    assert [row.id for row in await ledger.due_payments()] == [deposit]
    await walks.collect(deposit)
    assert (await ledger.tab("hash")).state == "open"


async def test_a_payer_has_one_bar_tab_until_it_is_closed(ledger, tab_walks, books):
    tab = await tab_walks.opened("bar", 1)
    with pytest.raises(TooManyUnsettled):
        await tab_walks.opened("bar", 2)
    await tab_walks.opened("bar", 3, payer=OTHER)
    await tab_walks.opened("prepaid", 4)
    await ledger.close_tab(tab.id)
    await tab_walks.opened("bar", 5)
    assert len(await books.rows(tabs)) == 4


async def test_bar_tabs_opened_at_once_by_one_payer_are_one(two_ledgers, race, books, new_payment):
    ledgers = two_ledgers()
    results = await race(
        ledgers[n % 2].open_tab(NewTab(f"tab_{n}", f"hash {n}", "bar"), new_payment(n))
        for n in range(8)
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert len(await books.rows(payments)) == 1


async def test_a_deposit_opens_one_tab(tab_walks, ledger, new_payment):
    await tab_walks.opened("prepaid", 1)
    with pytest.raises(PaymentConflict):
        await ledger.open_tab(NewTab("tab_2", "hash", "prepaid"), new_payment(2_001))


async def test_a_debtor_opens_no_tab(walks, tab_walks):
    await walks.debt()
    with pytest.raises(DebtOwed):
        await tab_walks.opened()


async def test_an_unknown_token_has_no_tab(ledger):
    with pytest.raises(Unauthorized):
        await ledger.tab("no such hash")
    assert await ledger.tab_by_id("tab_none") is None


async def test_what_the_opener_was_told_is_kept(ledger):
    await ledger.keep_reply("tab_1", {"token": "once"})
    assert await ledger.reply_of("tab_1") == {"token": "once"}


# --- closing


async def test_an_unused_bar_tab_closes_and_its_deposit_is_never_collected(
    ledger, walks, tab_walks, books
):
    tab = await ledger.close_tab((await tab_walks.opened()).id)
    assert (tab.state, tab.refunded) == ("closed", 50_000)
    assert await walks.state(tab.payment_id) == "released"
    assert await ledger.due_payments() == []
    assert await books.journal() == []


async def test_a_bar_tabs_settlement_is_taken_instead_of_its_deposit(
    ledger, walks, tab_walks, new_payment, books
):
    tab = await tab_walks.opened()
    await tab_walks.spend(tab)
    tab = await tab_walks.now(tab)
    closing = await ledger.close_tab(tab.id, await settlement_of(tab, new_payment))
    assert closing.state == "closing"
    assert [row.id for row in await ledger.due_payments()] == [closing.settlement_id]
    await walks.collect(closing.settlement_id)
    assert (await tab_walks.now(tab)).state == "closed"
    assert await walks.state(tab.payment_id) == "released"
    assert await books.account("wallet:0x" + "c" * 40) == 10_000


@pytest.mark.parametrize("wrong", [{"amount": 9_999}, {"amount": 10_001}, {"payer": OTHER}])
async def test_a_settlement_that_does_not_match_the_usage_is_refused(
    ledger, tab_walks, new_payment, books, wrong
):
    tab = await tab_walks.opened()
    await tab_walks.spend(tab)
    before = await books.everything()
    settlement = await settlement_of(await tab_walks.now(tab), new_payment, **wrong)
    with pytest.raises(PaymentConflict):
        await ledger.close_tab(tab.id, settlement)
    assert await books.everything() == before


async def test_a_debtor_can_still_settle_his_tab(ledger, walks, tab_walks, new_payment):
    tab = await tab_walks.opened()
    await tab_walks.spend(tab, 1)
    await walks.debt(2)
    tab = await tab_walks.now(tab)
    closing = await ledger.close_tab(tab.id, await settlement_of(tab, new_payment))
    assert closing.settlement_id is not None


@pytest.mark.parametrize("kind", ["bar", "prepaid"])
async def test_a_tab_with_an_answer_under_way_cannot_be_closed(ledger, tab_walks, books, kind):
    tab = await tab_walks.opened(kind)
    await tab_walks.ask(tab)
    before = await books.everything()
    with pytest.raises(PaymentConflict) as refusal:
        await ledger.close_tab(tab.id)
    assert refusal.value.code == "tab_busy"
    assert await books.everything() == before


async def test_a_tab_whose_deposit_is_not_settled_cannot_be_closed(ledger, new_payment):
    await ledger.open_tab(NewTab("tab_1", "hash", "prepaid"), new_payment(1))
    with pytest.raises(PaymentConflict) as refusal:
        await ledger.close_tab("tab_1")
    assert refusal.value.code == "tab_opening"


@pytest.mark.parametrize("kind", ["bar", "prepaid"])
async def test_a_tab_closed_by_many_at_once_is_settled_or_refunded_once(
    two_ledgers, tab_walks, race, books, kind
):
    tab = await tab_walks.opened(kind)
    await tab_walks.spend(tab)
    ledgers = two_ledgers()
    closed = await race(ledgers[n % 2].close_tab(tab.id) for n in range(16))
    assert {row.state for row in closed} == {"closing"}
    assert len(await books.rows(payments, payments.c.state == "served")) == 1


async def test_closing_and_asking_at_once_never_leaves_an_answer_on_a_closed_tab(
    two_ledgers, tab_walks, race, new_answer
):
    tab = await tab_walks.opened()
    ledgers = two_ledgers()
    results = await race(
        ledgers[0].close_tab(tab.id) if n == 8 else tab_walks.ask(tab, n) for n in range(16)
    )
    tab = await tab_walks.now(tab)
    asked = sum(isinstance(result, str) for result in results)
    assert (tab.state, asked * 10_000) in {("closed", 0), ("open", tab.held)}


async def test_closing_again_changes_nothing(ledger, tab_walks, books, new_payment):
    tab = await tab_walks.opened("prepaid")
    await tab_walks.spend(tab)
    await ledger.close_tab(tab.id)
    before = await books.everything()
    await ledger.close_tab(tab.id, new_payment(3_000))
    assert await books.everything() == before


# --- the caller who vanishes


async def test_tabs_unused_for_long_are_idle_unless_an_answer_is_under_way(
    ledger, tab_walks, clock
):
    bar, prepaid = await tab_walks.opened("bar", 1), await tab_walks.opened("prepaid", 2)
    busy = await tab_walks.opened("bar", 3, payer=OTHER)
    await tab_walks.ask(busy)
    clock.now += 100
    assert list(await ledger.idle_tabs(bar_idle_s=50, prepaid_idle_s=500)) == [bar.id]
    assert set(await ledger.idle_tabs(bar_idle_s=50, prepaid_idle_s=50)) == {bar.id, prepaid.id}
    await tab_walks.spend(bar, 2)
    assert list(await ledger.idle_tabs(bar_idle_s=50, prepaid_idle_s=500)) == []


async def test_a_bar_tab_is_idle_once_it_is_not_spendable_any_more(ledger, clock, new_payment):
    until = int(clock()) + 60
    await ledger.open_tab(NewTab("tab_1", "hash", "bar"), new_payment(1), spendable_until=until)
    clock.now += 60
    assert list(await ledger.idle_tabs(bar_idle_s=1_000, prepaid_idle_s=1_000)) == ["tab_1"]


async def test_only_open_bar_tabs_are_watched(ledger, tab_walks):
    bar = await tab_walks.opened("bar", 1)
    await tab_walks.opened("prepaid", 2)
    assert [row.id for row in await ledger.open_bar_tabs()] == [bar.id]
    await ledger.close_tab(bar.id)
    assert await ledger.open_bar_tabs() == []


async def test_a_tab_whose_deposit_is_gone_is_not_closed_in_silence(
    ledger, walks, tab_walks, books
):
    tab = await tab_walks.opened()
    await tab_walks.spend(tab)
    await ledger.close_tab(tab.id)
    await walks.lose(tab.payment_id)
    before = await books.everything()
    with pytest.raises(IllegalTransition):
        await ledger.uncollectable(tab.payment_id, "again")
    assert await books.everything() == before
