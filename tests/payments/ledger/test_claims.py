"""A payment is claimed once, and only by a payer who may owe that much more."""

import contextlib

import pytest
from sqlalchemy import text

from tinybrain.errors import DebtOwed, LedgerUnavailable, PaymentConflict, TooManyUnsettled
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import Limits, Purpose
from tinybrain.payments.schema import payments

OTHER = "0x" + "e" * 40


@pytest.mark.parametrize("copies", [8, 64])
async def test_one_authorization_buys_one_answer_of_two_processes(
    two_ledgers, books, race, new_answer, new_payment, copies
):
    ledgers = two_ledgers()
    results = await race(ledgers[n % 2].begin(new_answer(n), new_payment()) for n in range(copies))
    assert results.count("authorization") == 1
    assert sum(isinstance(result, PaymentConflict) for result in results) == copies - 1
    assert len(await books.rows(payments)) == 1


async def test_the_same_nonce_of_another_payer_is_another_claim(
    ledger, walks, new_answer, new_payment
):
    await walks.claimed(1)
    assert await ledger.begin(new_answer(2), new_payment(1, payer=OTHER)) == "authorization"


@pytest.mark.parametrize(
    "state", ["claimed", "served", "settling", "settled", "debt", "refunded", "repaid"]
)
async def test_an_authorization_in_any_state_but_released_is_taken(
    ledger, walks, books, new_answer, new_payment, state
):
    await getattr(walks, state)(1)
    if state == "debt":
        await walks.repay()
    before = await books.everything()
    with pytest.raises(PaymentConflict):
        await ledger.begin(new_answer(2), new_payment(1))
    assert await books.everything() == before


async def test_a_released_deposit_used_for_an_answer_leaves_its_tab(
    ledger, walks, tab_walks, new_answer, new_payment
):
    tab = await tab_walks.opened(deposit=10_000)
    await ledger.close_tab(tab.id)
    await ledger.begin(new_answer(), new_payment(2_001))
    row = await ledger.payment_of(new_answer().id)
    assert (row.id, row.purpose, row.tab_id) == (tab.payment_id, "answer", None)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_a_full_disk_refuses_the_claim_and_keeps_what_was_written(
    database, books, new_answer, new_payment
):
    ledger, claimed = Ledger(database, limits=Limits(unsettled_per_payer=10**9)), 0
    async with database.read() as connection:  # the pool's one connection, so far
        pages = await connection.scalar(text("pragma page_count"))
        await connection.execute(text(f"pragma max_page_count = {pages + 3}"))
    large = {"signature": "0x" + "f" * 2_000}
    with contextlib.suppress(LedgerUnavailable):
        while claimed < 100:
            await ledger.begin(new_answer(claimed), new_payment(claimed, payload=large))
            claimed += 1
    assert 0 < claimed < 100
    with pytest.raises(LedgerUnavailable, match="full"):
        await ledger.begin(new_answer(claimed), new_payment(claimed, payload=large))
    assert len(await books.rows(payments)) == claimed


# --- the same request again


async def test_a_repeated_request_finds_its_answer(ledger, walks, new_answer, new_payment):
    await walks.claimed()
    recorded = await ledger.recorded(new_payment())
    assert (recorded.answer_id, recorded.outcome, recorded.reply) == (
        new_answer().id,
        "running",
        None,
    )
    await walks.complete(reply={"text": "Paris"})
    recorded = await ledger.recorded(new_payment())
    assert (recorded.outcome, recorded.reply) == ("completed", {"text": "Paris"})


async def test_another_request_with_the_same_payment_is_a_conflict(ledger, walks, new_payment):
    await walks.claimed()
    for used in (new_payment(request_hash="1" * 64), new_payment(purpose=Purpose.TAB)):
        for look in (ledger.recorded, ledger.require_unclaimed):
            with pytest.raises(PaymentConflict):
                await look(used)


async def test_a_payment_that_was_not_charged_is_not_recorded(ledger, walks, new_payment):
    await walks.released()
    assert await ledger.recorded(new_payment(request_hash="1" * 64)) is None


async def test_a_new_authorization_with_the_same_identifier_finds_the_answer(
    ledger, walks, new_answer, new_payment
):
    await walks.claimed(1, identifier="order-1")
    assert (await ledger.recorded(new_payment(2, identifier="order-1"))).answer_id == (
        new_answer(1).id
    )
    assert await ledger.recorded(new_payment(2, identifier="order-1", payer=OTHER)) is None
    with pytest.raises(PaymentConflict):
        await ledger.begin(new_answer(2), new_payment(2, identifier="order-1"))


async def test_an_authorization_of_one_request_and_an_identifier_of_another_is_a_conflict(
    ledger, walks, new_payment
):
    await walks.claimed(1, identifier="order-1")
    await walks.claimed(2, request_hash="2" * 64)
    with pytest.raises(PaymentConflict):
        await ledger.recorded(new_payment(2, identifier="order-1"))


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_an_identifier_passes_from_a_released_payment_to_the_next(
    ledger, walks, new_answer, new_payment, order
):
    first, second = order
    for number in (1, 2):
        identifier = "order-1" if number == first else None
        await walks.released(number, identifier=identifier)
    await ledger.begin(new_answer(3), new_payment(second, identifier="order-1"))
    assert (await ledger.payment_of(new_answer(3).id)).identifier == "order-1"


# --- what a payer may owe


async def test_a_payer_with_a_debt_is_served_again_once_it_is_paid(walks):
    await walks.debt()
    with pytest.raises(DebtOwed, match=r"\$0\.01.*/v1/debts/0xb"):
        await walks.claimed(2)
    await walks.claimed(3, payer=OTHER)
    await walks.repay()
    await walks.claimed(2)


async def test_a_payer_may_have_so_much_unsettled_and_others_do_not_count(
    two_ledgers, race, new_answer, new_payment
):
    ledgers = two_ledgers(unsettled_per_payer=39_999)
    await ledgers[0].begin(new_answer(99), new_payment(99, payer=OTHER))
    results = await race(ledgers[n % 2].begin(new_answer(n), new_payment(n)) for n in range(10))
    assert results.count("authorization") == 3
    assert sum(isinstance(result, TooManyUnsettled) for result in results) == 7


async def test_all_payers_together_may_have_so_much_unsettled(
    two_ledgers, race, new_answer, new_payment
):
    ledgers = two_ledgers(unsettled=30_000)
    payers = [f"0x{n:040x}" for n in range(10)]
    results = await race(
        ledgers[n % 2].begin(new_answer(n), new_payment(n, payer=payer))
        for n, payer in enumerate(payers)
    )
    assert results.count("authorization") == 3


async def test_settled_upfront_and_our_own_refunds_are_no_exposure(
    database, clock, walks, new_answer, new_payment
):
    await walks.settled(1)
    await walks.refunding(2)
    await walks.claimed(3, flow="upfront")
    strict = Ledger(database, clock=clock, limits=Limits(unsettled=10_000))
    assert await strict.begin(new_answer(4), new_payment(4)) == "authorization"


async def test_an_unknown_payer_settles_first_until_he_is_trusted(
    database, clock, walks, new_answer, new_payment
):
    careful = Ledger(database, clock=clock, limits=Limits(trust_after=1))
    assert await careful.begin(new_answer(1), new_payment(1)) == "upfront"
    await walks.collect((await careful.payment_of(new_answer(1).id)).id)
    assert await careful.begin(new_answer(2), new_payment(2)) == "authorization"
    assert await careful.begin(new_answer(3), new_payment(3, payer=OTHER)) == "upfront"
