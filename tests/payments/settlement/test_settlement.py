"""Money for what was delivered is collected once, whatever stops those who collect it."""

import asyncio
from contextlib import contextmanager

import pytest

from tinybrain.errors import LedgerUnavailable, NotFound, PaymentServiceError
from tinybrain.payments import settlement
from tinybrain.payments.eip3009 import Authorization, calldata

pytestmark = pytest.mark.chain
NO_ANSWER = PaymentServiceError("no answer")


@contextmanager
def lost_while_taking(merchant, monkeypatch):
    """The ledger takes payments, and goes away before it can say so."""
    take = merchant.ledger.take

    async def take_and_fail(ids):
        await take(ids)
        raise LedgerUnavailable("The ledger cannot be written: the connection was lost.")

    with monkeypatch.context() as failing:
        failing.setattr(merchant.ledger, "take", take_and_fail)
        yield


async def test_a_served_payment_is_settled_with_the_transaction_and_block_of_the_chain(
    settler, merchant, chain, row
):
    assert await settler.drain() == 1
    settled = await row()
    receipt = chain.web3.eth.get_transaction_receipt(settled.transaction)
    assert (receipt["status"], receipt["blockNumber"]) == (1, settled.block)
    assert (settled.state, settled.attempts, settled.note) == ("settled", 1, None)
    assert merchant.balance() == 10_000
    assert await settler.drain() == 0


async def test_what_is_due_together_shares_one_transaction(settler, merchant, payer):
    rows = [await merchant.sell(payer) for _ in range(5)]
    assert await settler.drain() == 5
    settled = [await merchant.row(row) for row in rows]
    assert {row.state for row in settled} == {"settled"}
    assert len({row.transaction for row in settled}) == 1
    assert merchant.balance() == 50_000
    assert merchant.measured("tinybrain_settlement_batch_size_sum") == 5


async def test_no_batch_is_larger_than_the_setting(merchant, payer):
    rows = [await merchant.sell(payer) for _ in range(5)]
    await merchant.settler(batch_size=2).drain()
    transactions = {(await merchant.row(row)).transaction for row in rows}
    assert (len(transactions), merchant.balance()) == (3, 50_000)


async def test_those_who_ask_at_once_share_a_batch(settler, merchant, payer, monkeypatch):
    monkeypatch.setattr(settlement, "GATHER_S", 1)  # the slowest of them still joins
    rows = [await merchant.sell(payer) for _ in range(6)]
    await asyncio.gather(*map(merchant.row, rows))  # connections are opened once
    outcomes = await asyncio.gather(*(settler.settle_answer(row.answer_id) for row in rows))
    assert [outcome.state for outcome in outcomes] == ["settled"] * 6
    assert merchant.measured("tinybrain_settlement_batch_size_count") == 1


async def test_a_payment_that_asks_during_a_batch_is_settled_with_the_next(
    settler, merchant, payer, served
):
    draining = asyncio.create_task(settler.drain())
    late = await merchant.sell(payer)
    assert (await settler.settle_payment(late.id)).state == "settled"
    await draining
    assert merchant.balance() == 20_000


async def test_all_who_ask_at_once_settle_once(settler, merchant, served, row):
    asked = [settler.settle_answer(served.answer_id) for _ in range(3)]
    _, *outcomes, _ = await asyncio.gather(settler.drain(), *asked, settler.drain())
    assert {outcome.state for outcome in outcomes} == {"settled"}
    assert ((await row()).attempts, merchant.balance()) == (1, 10_000)


async def test_a_payment_upfront_is_settled_while_its_answer_is_still_to_be_made(
    settler, merchant, payer
):
    answer_id = await merchant.begin(payer, flow="upfront")
    assert (await settler.settle_answer(answer_id)).state == "settled"
    assert merchant.balance() == 10_000


async def test_a_claimed_payment_is_not_settled_before_its_answer_is_delivered(
    settler, merchant, payer
):
    answer_id = await merchant.begin(payer)
    assert (await settler.settle_answer(answer_id)).state == "claimed"
    assert (await settler.drain(), merchant.balance()) == (0, 0)


async def test_an_answer_without_a_payment_has_no_outcome(settler):
    assert await settler.settle_answer("ans_of_an_operator") is None
    with pytest.raises(NotFound):
        await settler.settle_payment(404)


async def test_one_lost_answer_does_not_hold_up_the_rest_of_its_batch(merchant, payer):
    good, bad = await merchant.sell(payer), await merchant.sell(payer)

    class LosesOne:
        async def settle_many(self, orders):
            (settled,) = await merchant.facilitator.settle_many(orders[:1])
            return [settled, NO_ANSWER]

    await merchant.settler(LosesOne()).drain()
    states = [(await merchant.row(row)).state for row in (good, bad)]
    assert states == ["settled", "served"]


async def test_a_batch_that_hangs_does_not_hold_up_the_next(merchant, payer, served, row):
    goes_on = asyncio.Event()

    class HangsOnce:
        async def settle_many(self, orders):
            self.settle_many = merchant.facilitator.settle_many
            await goes_on.wait()
            return await self.settle_many(orders)

    settler = merchant.settler(HangsOnce())
    (hanging,) = await settler.start()
    late = await merchant.sell(payer)
    assert (await settler.settle_payment(late.id)).state == "settled"
    assert (await row()).state == "settling"
    goes_on.set()
    await hanging
    assert (await row()).state == "settled"


async def test_killed_before_it_was_sent_a_payment_is_settled_after_the_restart(
    settler, merchant, clock, served, row
):
    await merchant.ledger.take([served.id])
    assert await settler.drain() == 0
    restarted = merchant.settler()
    await restarted.recover()
    await restarted.drain()
    clock.now += 5
    await restarted.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


async def test_killed_after_it_was_mined_a_payment_is_found_on_the_chain(
    merchant, payer, served, row
):
    await merchant.ledger.take([served.id])
    transaction = merchant.send(merchant.transfer(payer, served))
    restarted = merchant.settler()
    await restarted.recover()
    await restarted.drain()
    assert ((await row()).state, (await row()).transaction) == ("settled", transaction)


async def test_killed_between_record_and_broadcast_a_payment_is_sent_at_the_restart(
    merchant, served, row
):
    await merchant.ledger.take([served.id])
    signed = Authorization.model_validate(served.payload["payload"]["authorization"])
    data = calldata(signed, served.payload["payload"]["signature"])
    killed = merchant.hot_wallet()
    await killed._look()
    tx = killed._sign(0, merchant.settings.token.address, data, 120_000, killed._market)
    await killed._store.record(tx)
    restarted = merchant.settler(wallet=merchant.wallet)
    await restarted.recover()
    assert await merchant.wallet.wait(tx.hash, timeout_s=10)
    await restarted.drain()
    assert ((await row()).state, (await row()).transaction) == ("settled", tx.hash)
    assert ((await row()).attempts, merchant.balance()) == (1, 10_000)


async def test_a_cancelled_request_to_settle_does_not_stop_the_settlement(settler, served, row):
    asking = asyncio.create_task(settler.settle_answer(served.answer_id))
    while not settler._under_way:  # noqa: ASYNC110  # nothing there is to be waited for
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait(settler._under_way.values())
    assert (await row()).state == "settled"


async def test_a_ledger_that_fails_meanwhile_leaves_the_payment_to_be_looked_up(
    settler, merchant, served, row, monkeypatch
):
    async def fail(_):
        raise OSError("disk full")

    with monkeypatch.context() as failing:
        failing.setattr(merchant.ledger, "settled", fail)
        await settler.drain()
    assert ((await row()).state, settler._under_way) == ("settling", {})
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


async def test_a_ledger_that_goes_away_while_a_payment_is_taken_does_not_let_it_expire(
    settler, merchant, clock, served, row, monkeypatch
):
    """The payment is taken, and nobody knows; its authorization may not outlast the lease."""
    with lost_while_taking(merchant, monkeypatch):
        await settler.drain()
    assert ((await row()).state, (await row()).attempts) == ("settling", 1)
    await settler.drain()
    clock.now += 1
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


async def test_who_asks_for_an_interrupted_payment_does_not_wait_for_the_next_drain(
    settler, merchant, payer, monkeypatch
):
    answer_id = await merchant.begin(payer, flow="upfront")
    with lost_while_taking(merchant, monkeypatch):
        assert (await settler.settle_answer(answer_id)).state == "settling"
    states = [(await settler.settle_answer(answer_id)).state for _ in range(2)]
    assert states == ["claimed", "settled"]


async def test_an_interrupted_payment_stays_noted_while_the_ledger_is_away(
    settler, merchant, served, row, monkeypatch
):
    async def fail(*_, **__):
        raise LedgerUnavailable("The ledger cannot be read: it did not answer in time.")

    with monkeypatch.context() as failing:
        failing.setattr(merchant.ledger, "settled", fail)
        await settler.drain()
        failing.setattr(merchant.ledger, "payment", fail)
        await settler.drain()
        failing.setattr(merchant.ledger, "due_payments", fail)
        with pytest.raises(LedgerUnavailable):
            await settler.drain()
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


async def test_another_settlers_payment_is_left_to_it(settler, merchant, served, row):
    await merchant.ledger.take([served.id])
    assert (await settler.settle_payment(served.id)).state == "settling"
    assert (await row()).attempts == 1


async def test_a_payment_that_another_settler_took_over_does_not_hold_up_its_batch(
    settler, merchant, payer, served, row, clock
):
    other = await merchant.sell(payer)

    class TakesOver:
        async def settle_many(self, orders):
            await merchant.ledger.try_again(served.id, after_s=1, note="taken over")
            return await merchant.facilitator.settle_many(orders)

    await merchant.settler(TakesOver()).drain()
    assert [(await merchant.row(each)).state for each in (served, other)] == ["served", "settled"]
    clock.now += 5
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 20_000)


@pytest.mark.timeout(180)  # two wallets with one key lose nonces to each other, and wait
async def test_two_settlers_on_one_ledger_and_one_key_settle_every_payment_once(
    merchant, chain, clock
):
    payers = [chain.new_wallet() for _ in range(4)] * 6
    rows = [await merchant.sell(payer) for payer in payers]
    rival = merchant.settler(merchant.own_facilitator(merchant.hot_wallet()), batch_size=3)
    settler = merchant.settler(batch_size=3)
    asked = [each.settle_payment(row.id) for row in rows for each in (settler, rival)]
    await asyncio.gather(settler.drain(), rival.recover(), rival.drain(), *asked)
    for _ in range(3):
        clock.now += 151
        await asyncio.gather(settler.drain(), rival.drain())
    assert {(await merchant.row(row)).state for row in rows} == {"settled"}
    assert merchant.balance() == 240_000


async def test_how_long_a_payment_waited_is_measured(settler, merchant, served, clock):
    clock.now += 3
    await settler.drain()
    assert merchant.measured("tinybrain_settlement_seconds_sum") == pytest.approx(3, abs=0.01)
    assert merchant.measured("tinybrain_settlements_total", outcome="settled") == 1
    assert merchant.measured("tinybrain_revenue_usdc_atomic_total") == 10_000
