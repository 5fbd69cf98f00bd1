"""An answer begins with what pays for it, and ends once."""

import pytest

from tinybrain.errors import PaymentConflict
from tinybrain.payments.ledger import IllegalTransition
from tinybrain.payments.records import AnswerRecord, Charge
from tinybrain.payments.schema import entries, payments, replies

PAYER = "payer:0x" + "b" * 40


async def test_a_charged_answer_is_a_sale_to_its_payer(ledger, walks, books, new_answer):
    await ledger.begin(new_answer(), None)
    assert await ledger.outcome_of(new_answer().id) == "running"
    await walks.complete()
    assert await ledger.outcome_of(new_answer().id) == "completed"
    assert await books.journal() == []  # with an API key nobody pays
    payment = await walks.served(2)
    assert await books.journal() == [("sale", PAYER, "revenue", 10_000)]
    assert (await books.rows(entries))[0].payment_id == payment


async def test_a_failed_answer_moves_nothing_and_its_payment_may_buy_again(
    ledger, walks, books, new_answer, new_payment
):
    payment = await walks.released()
    assert await books.journal() == []
    row = (await books.rows(payments))[0]
    assert (row.state, row.note) == ("released", "it broke")
    await ledger.begin(new_answer(2), new_payment(1))
    assert [(row.id, row.answer_id) for row in await books.rows(payments)] == [
        (payment, new_answer(2).id)
    ]


async def test_what_was_bought_for_an_answer_is_known(ledger, walks, new_answer, new_purchase):
    for number in (1, 2, 3):
        await walks.claimed(number)
    await ledger.reserve(new_purchase(1_000, new_answer(2).id))
    refused = await ledger.reserve(new_purchase(1_000, new_answer(3).id))
    await ledger.release_purchase(refused, note="refused")
    bought = [await ledger.was_bought(new_answer(number).id) for number in (1, 2, 3)]
    assert bought == [False, True, False]


@pytest.mark.parametrize("charge", Charge)
@pytest.mark.parametrize("outcome", ["completed", "aborted", "failed"])
async def test_an_answer_ends_once(ledger, walks, books, new_answer, outcome, charge):
    await walks.served()
    before = await books.everything()
    with pytest.raises(IllegalTransition):
        await ledger.finish(new_answer().id, AnswerRecord(outcome), charge=charge)
    assert await books.everything() == before


async def test_an_answer_that_was_never_begun_cannot_end(walks):
    with pytest.raises(IllegalTransition):
        await walks.complete(404)


async def test_an_answer_ends_once_however_many_say_so_at_once(walks, race):
    await walks.claimed()
    results = await race([walks.complete() for _ in range(8)] + [walks.fail() for _ in range(8)])
    assert sum(not isinstance(result, IllegalTransition) for result in results) == 1


async def test_a_refused_claim_leaves_no_answer_behind(ledger, walks, new_answer, new_payment):
    await walks.claimed(1)
    with pytest.raises(PaymentConflict):
        await ledger.begin(new_answer(2), new_payment(1))
    assert await ledger.outcome_of(new_answer(2).id) is None


@pytest.mark.parametrize("state", ["claimed", "settling", "released"])
async def test_an_upfront_answer_is_not_delivered_before_its_payment_is_settled(
    ledger, walks, books, state
):
    payment = await walks.claimed(flow="upfront")
    if state != "claimed":
        await ledger.take([payment])
    if state == "released":
        await ledger.uncollectable(payment, "cancelled")
    before = await books.everything()
    with pytest.raises(IllegalTransition):
        await walks.complete()
    assert await books.everything() == before


async def test_a_delivered_upfront_answer_evens_the_payers_account(walks, books):
    await walks.upfront()
    assert await books.account(PAYER) == -10_000
    await walks.complete()
    assert await books.account(PAYER) == 0


async def test_a_failed_upfront_answer_is_refunded(walks, books):
    payment = await walks.refunding()
    assert await walks.state(payment) == "settled"
    refunds = await books.rows(payments, payments.c.refund_of == payment)
    assert [(row.state, row.amount) for row in refunds] == [("served", 10_000)]


async def test_an_upfront_payment_never_tried_is_released_with_its_failed_answer(walks):
    payment = await walks.claimed(flow="upfront")
    await walks.fail()
    assert await walks.state(payment) == "released"


async def test_abandoned_answers_end_as_failed_and_charge_nothing(
    ledger, walks, clock, new_answer, books
):
    old, upfront = await walks.claimed(1), await walks.upfront(2)
    clock.now += 100
    young = await walks.claimed(3)
    assert await ledger.release_abandoned(older_than_s=50) == 2
    assert await ledger.release_abandoned(older_than_s=50) == 0
    assert [await ledger.outcome_of(new_answer(n).id) for n in (1, 2, 3)] == [
        "failed",
        "failed",
        "running",
    ]
    assert [await walks.state(row) for row in (old, young)] == ["released", "claimed"]
    assert len(await books.rows(payments, payments.c.refund_of == upfront)) == 1


async def test_an_abandoned_answer_can_no_longer_be_finished(ledger, walks, clock):
    await walks.claimed()
    clock.now += 100
    await ledger.release_abandoned(older_than_s=50)
    with pytest.raises(IllegalTransition):
        await walks.complete()


async def test_a_charged_answers_reply_is_kept_until_it_is_forgotten(
    ledger, walks, clock, new_answer
):
    await walks.claimed()
    await walks.complete(reply={"text": "Paris"})
    assert await ledger.reply_of(new_answer().id) == {"text": "Paris"}
    clock.now += 100
    assert await ledger.forget_replies(older_than_s=200) == 0
    assert await ledger.forget_replies(older_than_s=50) == 1
    assert await ledger.reply_of(new_answer().id) is None


async def test_what_was_not_charged_is_not_kept(ledger, walks, books, new_answer):
    await walks.claimed()
    failed = AnswerRecord("failed")
    await ledger.finish(new_answer().id, failed, charge=Charge.NO, reply={"text": "half"})
    assert await books.rows(replies) == []


async def test_the_answer_costs_what_its_purchases_cost(ledger, receipts, new_answer, new_purchase):
    await ledger.begin(new_answer(credential="api_key"))
    await ledger.paid(await ledger.reserve(new_purchase(700, new_answer().id)), transaction="0x1")
    refused = await ledger.reserve(new_purchase(900, new_answer().id))
    await ledger.release_purchase(refused, note="refused")
    assert (await receipts.receipt(new_answer().id))["cost"] == 700


async def test_a_ledger_that_can_be_read_answers_a_ping(ledger, database):
    await ledger.ping()
