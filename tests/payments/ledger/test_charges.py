"""What answers take from a tab: never more than it has, and nothing for what failed."""

from collections import Counter

import pytest

from tinybrain.errors import PaymentConflict, PaymentRequired, Unauthorized
from tinybrain.payments.records import AnswerRecord, Charge, NewTab, TabCharge
from tinybrain.payments.schema import charges

PRICE = 10_000
PAYER = "payer:0x" + "b" * 40


def account(tab):
    return tab.balance, tab.held, tab.spent, tab.refunded


async def test_an_answer_is_held_then_captured_as_a_sale(walks, tab_walks, books):
    tab = await tab_walks.opened()
    await tab_walks.ask(tab)
    assert account(await tab_walks.now(tab)) == (40_000, 10_000, 0, 0)
    await walks.complete()
    assert account(await tab_walks.now(tab)) == (40_000, 0, 10_000, 0)
    assert await books.journal() == [("sale", PAYER, "revenue", 10_000)]


async def test_a_failed_answer_gives_back_what_it_held(walks, tab_walks, books):
    tab = await tab_walks.opened()
    await tab_walks.ask(tab)
    await walks.fail()
    assert account(await tab_walks.now(tab)) == (50_000, 0, 0, 0)
    assert await books.journal() == []


async def test_an_abandoned_answer_gives_back_what_it_held(ledger, tab_walks, clock):
    tab = await tab_walks.opened()
    await tab_walks.ask(tab)
    clock.now += 100
    await ledger.release_abandoned(older_than_s=50)
    assert account(await tab_walks.now(tab)) == (50_000, 0, 0, 0)


@pytest.mark.parametrize("kind", ["bar", "prepaid"])
async def test_ten_answers_balance_under_200_questions_at_once_pays_for_ten(
    two_ledgers, tab_walks, race, books, new_answer, kind
):
    tab = await tab_walks.opened(kind, deposit=100_000)
    ledgers = two_ledgers()

    async def ask_and_finish(number):
        ledger, answer = ledgers[number % 2], new_answer(number, credential="tab")
        await ledger.begin(answer, tab=TabCharge(tab.token_hash, "0" * 64))
        failed = number % 3 == 0
        record = AnswerRecord("failed" if failed else "completed")
        return await ledger.finish(answer.id, record, charge=Charge.NO if failed else Charge.YES)

    results = await race(ask_and_finish(number) for number in range(200))
    assert {type(result) for result in results} == {bool, PaymentRequired}
    charged, failed = results.count(True), results.count(False)
    states = Counter(row.state for row in await books.rows(charges))
    assert states == {"captured": charged, "released": failed}
    assert account(await tab_walks.now(tab)) == (100_000 - charged * PRICE, 0, charged * PRICE, 0)
    for number in range(charged, 10):  # what the failed ones gave back
        await tab_walks.spend(tab, 1_000 + number)
    with pytest.raises(PaymentRequired):
        await tab_walks.ask(tab, 2_000)


async def test_a_balance_smaller_than_the_price_is_refused_and_kept(tab_walks):
    tab = await tab_walks.opened(deposit=9_999)
    with pytest.raises(PaymentRequired) as refusal:
        await tab_walks.ask(tab)
    assert refusal.value.code == "tab_exhausted"
    assert account(await tab_walks.now(tab)) == (9_999, 0, 0, 0)


async def test_a_tab_is_refused_before_it_is_settled_and_after_it_is_closed(
    ledger, tab_walks, new_answer, new_payment
):
    await ledger.open_tab(NewTab("tab_1", "hash", "prepaid"), new_payment(1))
    opening = await ledger.tab("hash")
    with pytest.raises(PaymentRequired) as refusal:
        await tab_walks.ask(opening)
    assert refusal.value.code == "tab_opening"
    bar = await tab_walks.opened()
    await ledger.close_tab(bar.id)
    with pytest.raises(Unauthorized, match="closed"):
        await tab_walks.ask(bar)
    assert await ledger.outcome_of(new_answer().id) is None


async def test_a_token_that_opens_nothing_is_refused(ledger, new_answer):
    with pytest.raises(Unauthorized):
        await ledger.begin(new_answer(), tab=TabCharge("no such hash", ""))


async def test_a_bar_tab_is_spendable_only_while_its_deposit_can_still_settle(
    ledger, tab_walks, clock, new_payment
):
    until = int(clock()) + 60
    await ledger.open_tab(NewTab("tab_1", "hash", "bar"), new_payment(1), spendable_until=until)
    clock.now += 60
    with pytest.raises(Unauthorized):
        await tab_walks.ask(await ledger.tab("hash"))


# --- the same question again


async def test_an_idempotency_key_finds_its_answer(ledger, walks, tab_walks):
    tab = await tab_walks.opened()
    again = TabCharge(tab.token_hash, "0" * 64, "key")
    assert await ledger.charged_before(again) is None
    answer = await tab_walks.ask(tab, idempotency_key="key")
    assert (await ledger.charged_before(again)).outcome == "running"
    await walks.complete(reply={"text": "Paris"})
    recorded = await ledger.charged_before(again)
    assert (recorded.answer_id, recorded.outcome, recorded.reply) == (
        answer,
        "completed",
        {"text": "Paris"},
    )


async def test_an_idempotency_key_with_another_request_is_a_conflict(ledger, tab_walks):
    tab = await tab_walks.opened()
    await tab_walks.ask(tab, idempotency_key="key")
    with pytest.raises(PaymentConflict):
        await ledger.charged_before(TabCharge(tab.token_hash, "1" * 64, "key"))


async def test_one_idempotency_key_is_charged_once_however_often_it_is_asked_at_once(
    two_ledgers, tab_walks, race, new_answer
):
    tab = await tab_walks.opened()
    ledgers, charge = two_ledgers(), TabCharge(tab.token_hash, "0" * 64, "key")
    results = await race(ledgers[n % 2].begin(new_answer(n), tab=charge) for n in range(32))
    assert results.count("authorization") == 1
    assert sum(isinstance(result, PaymentConflict) for result in results) == 31
    assert (await tab_walks.now(tab)).held == 10_000


async def test_a_failed_answers_key_may_be_asked_again(ledger, walks, tab_walks):
    tab = await tab_walks.opened()
    await tab_walks.ask(tab, 1, idempotency_key="key")
    await walks.fail(1)
    assert await ledger.charged_before(TabCharge(tab.token_hash, "0" * 64, "key")) is None
    await tab_walks.ask(tab, 2, idempotency_key="key")
    assert (await tab_walks.now(tab)).held == 10_000


# --- a deposit that a reorganisation took away while answers were under way


@pytest.fixture
async def lost(ledger, tab_walks):
    """A prepaid tab with one answer under way, whose deposit is lost after all."""
    tab = await tab_walks.opened("prepaid")
    await tab_walks.ask(tab)
    await ledger.undone(tab.payment_id)
    assert await ledger.uncollectable(tab.payment_id, "spent elsewhere") == "released"
    return await tab_walks.now(tab)


async def test_an_answer_that_ends_after_its_deposit_was_lost_is_a_debt(
    ledger, walks, tab_walks, books, lost
):
    await walks.complete()
    deposit = await ledger.payment(lost.payment_id)
    assert (deposit.state, deposit.owed) == ("debt", 10_000)
    assert await books.account(PAYER) == 10_000
    assert account(await tab_walks.now(lost)) == (0, 0, 10_000, 40_000)


async def test_an_answer_that_fails_after_its_deposit_was_lost_is_not(
    ledger, walks, tab_walks, lost
):
    await walks.fail()
    assert await walks.state(lost.payment_id) == "released"
    assert account(await tab_walks.now(lost)) == (0, 0, 0, 50_000)
