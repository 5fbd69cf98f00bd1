"""The ledger's states: every transition, every refusal, under concurrency."""

import asyncio
import contextlib

import pytest
from sqlalchemy import text

from tinybrain.errors import (
    BudgetExceeded,
    LedgerUnavailable,
    PaymentConflict,
    TooManyUnsettled,
)
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import DAY_MS, SETTLING_LEASE_MS, IllegalTransition, Ledger
from tinybrain.payments.records import AnswerRecord, Charge

COMPLETED = AnswerRecord(outcome="completed", answered_by="tinychat", model="tinychat")
FAILED = AnswerRecord(outcome="failed", error="it broke")


async def served(ledger, new_answer, new_payment, number=1):
    answer = new_answer(number)
    await ledger.begin(answer, new_payment(number))
    await ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
    return await ledger.payment_of(answer.id)


async def test_eight_copies_of_one_authorization_give_one_claim(ledger, new_answer, new_payment):
    results = await asyncio.gather(
        *(ledger.begin(new_answer(n), new_payment()) for n in range(8)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert sum(isinstance(result, PaymentConflict) for result in results) == 7


async def test_two_processes_with_a_connection_each_give_one_claim(
    tmp_path, new_answer, new_payment
):
    url = f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"
    databases = await asyncio.gather(Database.open(url), Database.open(url))
    results = await asyncio.gather(
        *(Ledger(db).begin(new_answer(n), new_payment()) for n, db in enumerate(databases)),
        return_exceptions=True,
    )
    assert results.count(None) == 1
    for database in databases:
        await database.close()


async def test_a_full_disk_refuses_the_claim_and_keeps_what_was_written(
    database, new_answer, new_payment
):
    ledger, claimed = Ledger(database, most_unsettled=10_000), 0
    async with database.read() as connection:  # the pool's one connection, so far
        pages = await connection.scalar(text("pragma page_count"))
        await connection.execute(text(f"pragma max_page_count = {pages + 3}"))
    large = {"signature": "0x" + "f" * 2_000}
    with contextlib.suppress(LedgerUnavailable):
        while claimed < 1_000:
            await ledger.begin(new_answer(claimed), new_payment(claimed, payload=large))
            claimed += 1
    assert 0 < claimed < 1_000
    with pytest.raises(LedgerUnavailable, match="full"):
        await ledger.begin(new_answer(claimed), new_payment(claimed, payload=large))
    assert (await ledger.payment_of(new_answer(0).id)).state == "claimed"
    assert await ledger.payment_of(new_answer(claimed).id) is None


async def test_a_refused_claim_leaves_no_answer_behind(ledger, receipts, new_answer, new_payment):
    await ledger.begin(new_answer(1), new_payment())
    with pytest.raises(PaymentConflict):
        await ledger.begin(new_answer(2), new_payment())
    assert await receipts.receipt(new_answer(2).id) is None


async def test_the_same_nonce_of_another_payer_is_another_claim(ledger, new_answer, new_payment):
    await ledger.begin(new_answer(1), new_payment())
    await ledger.begin(new_answer(2), new_payment(payer="0x" + "e" * 40))


async def test_the_conflict_names_the_answer_that_was_bought(ledger, new_answer, new_payment):
    await ledger.begin(new_answer(1), new_payment())
    with pytest.raises(PaymentConflict, match=new_answer(1).id):
        await ledger.require_unused(new_payment())


async def test_a_stranger_who_knows_the_nonce_does_not_learn_the_receipt(
    ledger, new_answer, new_payment
):
    await ledger.begin(new_answer(1), new_payment())
    with pytest.raises(PaymentConflict) as caught:
        await ledger.require_unused(new_payment(payload={"signature": "0x00"}))
    assert new_answer(1).id not in caught.value.message


async def test_a_payer_can_only_owe_so_many_answers_at_once(database, new_answer, new_payment):
    ledger = Ledger(database, most_unsettled=3)
    results = await asyncio.gather(
        *(ledger.begin(new_answer(n), new_payment(n)) for n in range(10)), return_exceptions=True
    )
    assert results.count(None) == 3
    assert sum(isinstance(result, TooManyUnsettled) for result in results) == 7


async def test_a_debt_counts_and_a_settled_answer_does_not(database, new_answer, new_payment):
    ledger = Ledger(database, most_unsettled=1)
    row = await served(ledger, new_answer, new_payment)
    await ledger.take(row.id)
    await ledger.settled(row.id, "0x1")
    row = await served(ledger, new_answer, new_payment, number=2)
    await ledger.take(row.id)
    await ledger.owed(row.id, "cancelled")
    with pytest.raises(TooManyUnsettled):
        await ledger.begin(new_answer(3), new_payment(3))
    await ledger.begin(new_answer(4), new_payment(4, payer="0x" + "e" * 40))


async def test_an_aborted_answer_is_charged_only_if_something_was_bought_for_it(
    ledger, new_answer, new_payment, new_purchase
):
    aborted = AnswerRecord(outcome="aborted", error="the caller left")
    for number in (1, 2, 3):
        await ledger.begin(new_answer(number), new_payment(number))
    await ledger.reserve(new_purchase(1_000, new_answer(2).id), day_cap=10_000)
    refused = await ledger.reserve(new_purchase(1_000, new_answer(3).id), day_cap=10_000)
    await ledger.release_purchase(refused, note="refused")
    for number in (1, 2, 3):
        await ledger.finish(new_answer(number).id, aborted, charge=Charge.IF_BOUGHT)
    states = [(await ledger.payment_of(new_answer(n).id)).state for n in (1, 2, 3)]
    assert states == ["released", "served", "released"]


async def test_a_failed_answer_releases_its_payment_which_may_buy_again(
    ledger, new_answer, new_payment
):
    await ledger.begin(new_answer(1), new_payment())
    await ledger.finish(new_answer(1).id, FAILED, charge=Charge.NO)
    await ledger.require_unused(new_payment())
    await ledger.begin(new_answer(2), new_payment())
    assert (await ledger.payment_of(new_answer(2).id)).state == "claimed"


async def test_an_answer_ends_once(ledger, new_answer, new_payment):
    await served(ledger, new_answer, new_payment)
    with pytest.raises(IllegalTransition):
        await ledger.finish(new_answer(1).id, FAILED, charge=Charge.NO)
    assert (await ledger.payment_of(new_answer(1).id)).state == "served"


async def test_an_unpaid_answer_is_recorded_without_a_payment(ledger, receipts, new_answer):
    answer = new_answer(credential="api_key")
    await ledger.begin(answer, None)
    await ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
    receipt = await receipts.receipt(answer.id)
    assert receipt["outcome"] == "completed"
    assert receipt["payment"] is None


async def test_settlement_walks_served_settling_settled(ledger, new_answer, new_payment):
    row = await served(ledger, new_answer, new_payment)
    assert await ledger.take(row.id)
    await ledger.settled(row.id, "0x1")
    settled = await ledger.payment_of(new_answer(1).id)
    assert (settled.state, settled.transaction, settled.attempts) == ("settled", "0x1", 1)


async def test_only_one_of_many_workers_takes_a_payment(ledger, new_answer, new_payment):
    row = await served(ledger, new_answer, new_payment)
    taken = await asyncio.gather(*(ledger.take(row.id) for _ in range(5)))
    assert sum(taken) == 1


@pytest.mark.parametrize("step", ["settled", "owed", "try_again", "look_again"])
async def test_a_payment_that_is_not_settling_cannot_leave_that_state(
    ledger, new_answer, new_payment, step
):
    row = await served(ledger, new_answer, new_payment)
    arguments = {
        "settled": {"transaction": "0x1"},
        "owed": {"note": "x"},
        "try_again": {"after_s": 1, "note": "x"},
        "look_again": {"after_s": 1, "transaction": "0x1"},
    }[step]
    with pytest.raises(IllegalTransition):
        await getattr(ledger, step)(row.id, **arguments)


async def test_only_a_debt_can_be_withheld(ledger, new_answer, new_payment):
    row = await served(ledger, new_answer, new_payment)
    with pytest.raises(IllegalTransition):
        await ledger.withheld(row.id)
    await ledger.take(row.id)
    await ledger.owed(row.id, "cancelled")
    await ledger.withheld(row.id)
    assert (await ledger.payment_of(new_answer(1).id)).state == "released"


async def test_a_retry_is_due_only_after_its_delay(ledger, clock, new_answer, new_payment):
    row = await served(ledger, new_answer, new_payment)
    await ledger.take(row.id)
    await ledger.try_again(row.id, after_s=10, note="facilitator down")
    assert await ledger.due_payments() == []
    clock.now += 11
    assert [due.id for due in await ledger.due_payments()] == [row.id]


async def test_a_settling_payment_is_looked_at_again_when_its_worker_is_gone(
    ledger, clock, new_answer, new_payment
):
    row = await served(ledger, new_answer, new_payment)
    await ledger.take(row.id)
    assert await ledger.due_payments() == []
    clock.now += SETTLING_LEASE_MS / 1000 + 1
    assert [due.state for due in await ledger.due_payments()] == ["settling"]


async def test_a_restart_makes_settling_payments_due_at_once(ledger, new_answer, new_payment):
    row = await served(ledger, new_answer, new_payment)
    await ledger.take(row.id)
    await ledger.reopen_settling()
    assert [due.id for due in await ledger.due_payments()] == [row.id]


async def test_an_abandoned_answer_releases_its_payment(
    ledger, receipts, clock, new_answer, new_payment
):
    await ledger.begin(new_answer(1), new_payment(1))
    clock.now += 100
    await ledger.begin(new_answer(2), new_payment(2))
    assert await ledger.release_abandoned(older_than_s=50) == 1
    assert (await ledger.payment_of(new_answer(1).id)).state == "released"
    assert (await receipts.receipt(new_answer(1).id))["outcome"] == "failed"
    assert (await ledger.payment_of(new_answer(2).id)).state == "claimed"


async def test_an_abandoned_answer_can_no_longer_be_finished(
    ledger, clock, new_answer, new_payment
):
    await ledger.begin(new_answer(1), new_payment())
    clock.now += 100
    await ledger.release_abandoned(older_than_s=50)
    with pytest.raises(IllegalTransition):
        await ledger.finish(new_answer(1).id, COMPLETED, charge=Charge.YES)


async def test_many_reservations_at_once_never_exceed_the_cap_by_one_unit(ledger, new_purchase):
    results = await asyncio.gather(
        *(ledger.reserve(new_purchase(1_000), day_cap=3_999) for _ in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, int) for result in results) == 3
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 7


async def test_released_and_day_old_purchases_free_the_budget(ledger, clock, new_purchase):
    first = await ledger.reserve(new_purchase(), day_cap=1_000)
    await ledger.release_purchase(first, note="refused")
    second = await ledger.reserve(new_purchase(), day_cap=1_000)
    await ledger.paid(second, transaction=None)
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(new_purchase(), day_cap=1_000)
    clock.now += DAY_MS / 1000 + 1
    await ledger.reserve(new_purchase(), day_cap=1_000)


async def test_a_paid_purchase_cannot_be_released(ledger, new_purchase):
    purchase = await ledger.reserve(new_purchase(), day_cap=1_000)
    await ledger.paid(purchase, transaction="0x1")
    with pytest.raises(IllegalTransition):
        await ledger.release_purchase(purchase, note="x")


async def test_signed_purchases_are_unresolved_once_expired(ledger, clock, new_purchase):
    purchase = await ledger.reserve(new_purchase(), day_cap=1_000)
    await ledger.signed(purchase, nonce="0xAB", valid_before=int(clock()) + 10)
    clock.now += 12
    assert await ledger.unresolved_purchases(expired_for_s=60) == []
    clock.now += 60
    unresolved = await ledger.unresolved_purchases(expired_for_s=60)
    assert [row.nonce for row in unresolved] == ["0xab"]


async def test_reservations_never_signed_are_released_later(ledger, clock, new_purchase):
    await ledger.reserve(new_purchase(), day_cap=1_000)
    clock.now += 100
    await ledger.release_unsigned_purchases(older_than_s=50)
    await ledger.reserve(new_purchase(), day_cap=1_000)


async def test_the_answer_costs_what_its_purchases_cost(ledger, receipts, new_answer, new_purchase):
    answer = new_answer(credential="api_key")
    await ledger.begin(answer, None)
    paid = await ledger.reserve(new_purchase(700, answer.id), day_cap=10_000)
    await ledger.paid(paid, transaction="0x1")
    refused = await ledger.reserve(new_purchase(900, answer.id), day_cap=10_000)
    await ledger.release_purchase(refused, note="refused")
    await ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
    assert (await receipts.receipt(answer.id))["cost"] == 700
