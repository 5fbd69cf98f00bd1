"""Every transition of a payment, and every one that there is not."""

import pytest

from tinybrain.payments.ledger import IllegalTransition
from tinybrain.payments.ledger.settling import SETTLING_LEASE_MS
from tinybrain.payments.records import Collected, PaymentState
from tinybrain.payments.schema import payments

PAYER, OURS = "payer:0x" + "b" * 40, "wallet:0x" + "c" * 40

TRANSITIONS = {
    "settled": ({"settling"}, lambda ledger, row: ledger.settled([Collected(row, "0x1", 1)])),
    "uncollectable": ({"settling"}, lambda ledger, row: ledger.uncollectable(row, "gone")),
    "try_again": ({"settling"}, lambda ledger, row: ledger.try_again(row, after_s=1, note="x")),
    "look_again": (
        {"settling"},
        lambda ledger, row: ledger.look_again(row, after_s=1, transaction="0x1"),
    ),
    "withheld": ({"debt"}, lambda ledger, row: ledger.withheld(row)),
    "undone": ({"settled", "refunded"}, lambda ledger, row: ledger.undone(row)),
    "refund_signed": (
        set(),
        lambda ledger, row: ledger.refund_signed(row, valid_before=1, payload={}),
    ),
}


@pytest.mark.parametrize("state", PaymentState)
async def test_a_transition_from_the_wrong_state_is_illegal_and_changes_nothing(
    ledger, walks, books, state
):
    payment = await getattr(walks, state)()
    assert await walks.state(payment) == state
    before = await books.everything()
    for name, (legal, step) in TRANSITIONS.items():
        if state not in legal:
            with pytest.raises(IllegalTransition):
                await step(ledger, payment)
            assert await books.everything() == before, name
    assert await ledger.take([payment]) == ({payment} if state == "served" else set())


@pytest.mark.parametrize("name", TRANSITIONS)
async def test_a_payment_that_does_not_exist_has_no_transitions(ledger, name):
    with pytest.raises(IllegalTransition):
        await TRANSITIONS[name][1](ledger, 404)


async def test_a_collected_payment_is_settled_with_its_transaction_and_block(ledger, walks, books):
    payment = await walks.settling()
    await ledger.settled([Collected(payment, "0x1", 7)])
    row = await ledger.payment(payment)
    assert (row.state, row.transaction, row.block, row.attempts) == ("settled", "0x1", 7, 1)
    assert await books.journal() == [
        ("sale", PAYER, "revenue", 10_000),
        ("collection", OURS, PAYER, 10_000),
    ]


async def test_a_batch_with_one_payment_that_is_not_settling_settles_none(ledger, walks, books):
    good, bad = await walks.settling(1), await walks.served(2)
    before = await books.everything()
    with pytest.raises(IllegalTransition):
        await ledger.settled([Collected(good, "0x1", 7), Collected(bad, "0x1", 7)])
    assert await books.everything() == before


async def test_a_served_payment_that_cannot_be_collected_is_a_debt(ledger, walks, books):
    payment = await walks.settling()
    assert await ledger.uncollectable(payment, "n" * 400) == "debt"
    row = await ledger.payment(payment)
    assert (row.state, row.owed, row.note) == ("debt", 10_000, "n" * 300)
    assert await books.account(PAYER) == 10_000
    assert [debt.id for debt in await ledger.debts("0x" + "b" * 40)] == [payment]


async def test_an_upfront_payment_that_cannot_be_collected_is_released(ledger, walks, books):
    payment = await walks.claimed(flow="upfront")
    assert await walks.lose(payment) == "released"
    assert await books.journal() == []


async def test_an_answer_withheld_is_not_owed_for(ledger, walks, books):
    payment = await walks.debt()
    await ledger.withheld(payment)
    assert await walks.state(payment) == "released"
    assert await books.account(PAYER) == 0
    assert await books.account("revenue") == 0


@pytest.mark.parametrize(("flow", "state"), [("authorization", "served"), ("upfront", "claimed")])
async def test_a_failed_attempt_is_due_again_after_its_delay(ledger, walks, clock, flow, state):
    payment = await (walks.served() if state == "served" else walks.claimed(flow=flow))
    await ledger.take([payment])
    await ledger.try_again(payment, after_s=10, note="the facilitator is away")
    assert await walks.state(payment) == state
    assert await ledger.due_payments() == []
    clock.now += 11
    assert [row.id for row in await ledger.due_payments()] == [payment]
    assert await ledger.take([payment]) == {payment}
    assert (await ledger.payment(payment)).attempts == 2


async def test_a_transaction_under_way_is_kept_and_looked_at_later(ledger, walks, clock):
    payment = await walks.settling()
    await ledger.look_again(payment, after_s=10, transaction="0x1")
    assert await ledger.due_payments() == []
    clock.now += 11
    row = (await ledger.due_payments())[0]
    assert (row.id, row.state, row.transaction) == (payment, "settling", "0x1")


async def test_a_settling_payment_is_due_again_when_its_worker_is_gone(ledger, walks, clock):
    await walks.settling()
    assert await ledger.due_payments() == []
    clock.now += SETTLING_LEASE_MS / 1000 + 1
    assert [row.state for row in await ledger.due_payments()] == ["settling"]


async def test_a_restart_makes_settling_payments_due_at_once(ledger, walks):
    payment = await walks.settling()
    await ledger.reopen_settling()
    assert [row.id for row in await ledger.due_payments()] == [payment]


async def test_workers_that_take_the_same_payments_each_get_their_own(
    two_ledgers, walks, race, books
):
    ids = {await walks.served(number) for number in range(8)}
    ledgers = two_ledgers()
    taken = await race(ledgers[n % 2].take([*ids]) for n in range(6))
    assert sum(map(len, taken)) == 8
    assert set().union(*taken) == ids
    assert {row.attempts for row in await books.rows(payments)} == {1}


# --- reorganisations


async def test_a_reorganisation_takes_the_money_out_of_the_journal(ledger, walks, books):
    payment = await walks.settled()
    await ledger.undone(payment)
    row = await ledger.payment(payment)
    assert (row.state, row.transaction, row.block) == ("settling", None, None)
    assert (await books.journal())[-1] == ("reorganisation", PAYER, OURS, 10_000)
    assert await books.account(PAYER) == 10_000
    await walks.collect(payment)
    assert await books.account(PAYER) == 0


async def test_only_settled_payments_under_the_block_are_looked_at_again_once(ledger, walks):
    payment, _ = await walks.settled(1), await walks.served(2)
    assert await ledger.shallow(below=6) == []
    assert [row.id for row in await ledger.shallow(below=7)] == [payment]
    await ledger.final([payment])
    assert await ledger.shallow(below=7) == []


async def test_a_payment_undone_in_between_does_not_become_final(ledger, walks):
    payment = await walks.settled()
    await ledger.undone(payment)
    await ledger.final([payment])
    await walks.collect(payment)
    assert [row.id for row in await ledger.shallow(below=7)] == [payment]


async def test_a_payment_undone_and_lost_is_a_debt_only_if_something_was_delivered(ledger, walks):
    delivered, running = await walks.settled(1), await walks.upfront(2)
    for payment in (delivered, running):
        await ledger.undone(payment)
    assert await ledger.uncollectable(delivered, "spent elsewhere") == "debt"
    assert await ledger.uncollectable(running, "spent elsewhere") == "released"


async def test_an_upfront_answer_that_failed_while_its_payment_settled_is_refunded(
    ledger, walks, books
):
    payment = await walks.claimed(flow="upfront")
    await ledger.take([payment])
    await walks.fail()
    assert await walks.state(payment) == "settling"
    await ledger.settled([Collected(payment, "0x1", 7)])
    refunds = await books.rows(payments, payments.c.refund_of == payment)
    assert [(row.amount, row.pay_to, row.state) for row in refunds] == [
        (10_000, "0x" + "b" * 40, "served")
    ]
