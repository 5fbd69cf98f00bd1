"""Money for what was delivered: collected once, whatever fails on the way, or listed as a debt."""

import asyncio

import pytest
from x402.schemas import SettleResponse

from tests.payments.settling import NETWORK, LosesAnswers, Merchant
from tinybrain.devnet.token import MULTICALL3
from tinybrain.errors import LedgerUnavailable, NotFound, PaymentServiceError
from tinybrain.payments.chain import Chain
from tinybrain.payments.eip3009 import Authorization, calldata
from tinybrain.payments.facilitators import HttpFacilitator
from tinybrain.payments.rpc import Rpc

pytestmark = pytest.mark.chain
NOBODY = "http://127.0.0.1:1"
NO_ANSWER = PaymentServiceError("no answer")
PENDING = SettleResponse(
    success=False, error_reason="settlement_pending", transaction="0x" + "7" * 64, network=NETWORK
)
AGGREGATE = {
    "type": "function",
    "name": "aggregate",
    "stateMutability": "payable",
    "outputs": [],
    "inputs": [
        {
            "name": "calls",
            "type": "tuple[]",
            "components": [
                {"name": "target", "type": "address"},
                {"name": "callData", "type": "bytes"},
            ],
        }
    ],
}


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(scope="module")
def chain(start_chain, tmp_path_factory):
    """Its time goes ahead of the clock's here, so it is nobody else's."""
    chain = start_chain(tmp_path_factory.mktemp("chain"))
    yield chain
    chain.stop()


@pytest.fixture
async def merchant(chain, database, ledger, clock):
    merchant = Merchant(chain, database, ledger, clock)
    yield merchant
    await merchant.aclose()


@pytest.fixture
def settler(merchant):
    return merchant.settler()


@pytest.fixture
def payer(chain):
    return chain.new_wallet()


@pytest.fixture
async def served(merchant, payer):
    """A payment of an answer that was delivered."""
    return await merchant.sell(payer)


@pytest.fixture
def row(merchant, served):
    """The payment as it stands now."""
    return lambda: merchant.row(served)


@pytest.fixture
async def silent_chain(merchant):
    rpc = Rpc(NOBODY)
    yield Chain(rpc, merchant.settings.token.address)
    await rpc.aclose()


@pytest.fixture
async def silent_facilitator():
    away = HttpFacilitator(NOBODY)
    yield away
    await away.aclose()


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


async def test_those_who_ask_at_once_share_a_batch(settler, merchant, payer):
    rows = [await merchant.sell(payer) for _ in range(6)]
    await asyncio.gather(*map(merchant.row, rows))  # connections are opened once
    outcomes = await asyncio.gather(*(settler.settle_answer(row.answer_id) for row in rows))
    assert [outcome.state for outcome in outcomes] == ["settled"] * 6
    assert merchant.measured("tinybrain_settlement_batch_size_count") <= 2


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


async def test_a_facilitator_that_is_away_is_tried_again_later(
    settler, merchant, silent_facilitator, clock, row
):
    await merchant.settler(silent_facilitator).drain()
    assert ((await row()).state, "no answer" in (await row()).note) == ("served", True)
    assert await settler.drain() == 0
    clock.now += 5
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


async def test_the_pause_between_attempts_doubles(merchant, silent_facilitator, clock, row):
    settler = merchant.settler(silent_facilitator)
    for pause_ms in (1_000, 2_000, 4_000):
        await settler.settle_payment((await row()).id)
        assert (await row()).due_ms - merchant.ledger.now_ms() == pause_ms


async def test_without_a_word_from_the_chain_nothing_is_concluded(
    merchant, silent_facilitator, silent_chain, clock, row
):
    clock.now += 10_000
    await merchant.settler(silent_facilitator, chain=silent_chain).drain()
    assert ((await row()).state, "chain" in (await row()).note) == ("served", True)


async def test_an_answer_that_was_lost_after_the_settlement_is_found_on_the_chain(merchant, row):
    lost = LosesAnswers(merchant.facilitator, NO_ANSWER, works=True)
    await merchant.settler(lost).drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


async def test_a_refusal_after_the_settlement_is_not_believed(merchant, row):
    refused = SettleResponse(
        success=False, error_reason="nonce_already_used", transaction="", network=NETWORK
    )
    await merchant.settler(LosesAnswers(merchant.facilitator, refused, works=True)).drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


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


async def test_without_gas_a_payment_waits_until_there_is_some(settler, merchant, clock, row):
    merchant.anvil("setBalance", merchant.gas.address, "0x0")
    await settler.drain()
    assert ((await row()).state, "native coin" in (await row()).note) == ("served", True)
    merchant.anvil("setBalance", merchant.gas.address, hex(10**18))
    clock.now += 5
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


async def test_a_pending_transaction_is_looked_for_and_not_sent_again(
    settler, merchant, clock, row
):
    pending = LosesAnswers(merchant.facilitator, PENDING, works=False)
    await merchant.settler(pending).drain()
    for _ in range(3):
        clock.now += 60
        await settler.drain()
        assert ((await row()).state, (await row()).attempts) == ("settling", 1)
    assert merchant.balance() == 0


async def test_a_pending_transaction_that_was_mined_is_found(merchant, clock, row):
    settler = merchant.settler(LosesAnswers(merchant.facilitator, PENDING, works=True))
    await settler.drain()
    assert (await row()).state == "settling"
    clock.now += 5
    await settler.drain()
    settled = await row()
    assert (settled.state, settled.transaction != PENDING.transaction) == ("settled", True)


async def test_a_pending_transaction_that_got_lost_is_sent_again_before_the_payment_expires(
    settler, merchant, clock, row
):
    await merchant.settler(LosesAnswers(merchant.facilitator, PENDING, works=False)).drain()
    clock.now += 280
    await settler.drain()
    assert (await row()).state == "served"
    clock.now += 5
    await settler.drain()
    assert (await row()).state == "settled"


async def test_an_authorization_that_somebody_else_submitted_counts_as_paid(
    settler, merchant, payer, served, row
):
    transaction = merchant.send(merchant.transfer(payer, served))
    await settler.drain()
    assert ((await row()).state, (await row()).transaction) == ("settled", transaction)
    assert merchant.balance() == 10_000


async def test_a_cancelled_authorization_is_a_debt(settler, merchant, chain, payer, served, row):
    message = {"authorizer": payer.address, "nonce": served.nonce}
    types = [{"name": "authorizer", "type": "address"}, {"name": "nonce", "type": "bytes32"}]
    token = merchant.settings.token
    signed = payer.sign_typed_data(
        {
            "name": token.name,
            "version": token.version,
            "chainId": 84532,
            "verifyingContract": token.address,
        },
        {"CancelAuthorization": types},
        message,
    )
    cancel = chain.token.functions.cancelAuthorization(*message.values(), signed.signature)
    merchant.send(cancel)
    await settler.drain()
    assert ((await row()).state, "cancelled" in (await row()).note) == ("debt", True)
    assert merchant.measured("tinybrain_debts_usdc_atomic_total") == 10_000


async def test_a_nonce_spent_on_another_transfer_is_a_debt(settler, merchant, payer, served, row):
    merchant.send(merchant.transfer(payer, served, to=payer.address))
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("debt", 0)


async def test_a_smaller_payment_under_the_same_nonce_is_a_debt(
    settler, merchant, payer, served, row
):
    merchant.send(merchant.transfer(payer, served, amount=1, value=1))
    await settler.drain()
    assert (await row()).state == "debt"


async def test_one_transfer_does_not_pay_for_two_nonces_of_a_transaction(
    settler, merchant, chain, payer, served, row
):
    elsewhere = merchant.transfer(payer, served, to=payer.address)
    here = merchant.transfer(payer, served, nonce="0x" + "7" * 64)
    calls = [
        (chain.token.address, call.build_transaction({"gas": 1})["data"])
        for call in (elsewhere, here)
    ]
    merchant.send(chain.web3.eth.contract(MULTICALL3, abi=[AGGREGATE]).functions.aggregate(calls))
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("debt", 10_000)


async def test_an_upfront_payment_that_cannot_be_collected_is_released(settler, merchant, payer):
    answer_id = await merchant.begin(payer, flow="upfront")
    claimed = await merchant.ledger.payment_of(answer_id)
    merchant.send(merchant.transfer(payer, claimed, to=payer.address))
    assert (await settler.settle_answer(answer_id)).state == "released"


async def test_a_payer_who_spent_the_money_pays_when_there_is_some_again(
    settler, merchant, chain, payer, clock, row
):
    everything = chain.token.functions.transfer(chain.wallets.provider.address, 1_000_000)
    merchant.send(everything, payer)
    await settler.drain()
    assert ((await row()).state, "insufficient" in (await row()).note) == ("served", True)
    merchant.mint(payer, 10_000)
    clock.now += 5
    await settler.drain()
    assert (await row()).state == "settled"


async def test_a_payer_who_stays_without_money_owes_once_the_authorization_expired(
    settler, merchant, chain, payer, clock, row
):
    everything = chain.token.functions.transfer(chain.wallets.provider.address, 1_000_000)
    merchant.send(everything, payer)
    merchant.pass_time(361)
    await settler.drain()
    assert ((await row()).state, "expired" in (await row()).note) == ("debt", True)


async def test_no_authorization_expires_by_our_clock_alone(settler, merchant, payer, clock, row):
    """A chain that stood still makes up the blocks it missed, with old timestamps."""
    served = await row()
    lost = merchant.settler(LosesAnswers(merchant.facilitator, NO_ANSWER, works=False))
    clock.now += 361
    await lost.drain()
    assert (await row()).state == "served"
    merchant.send(merchant.transfer(payer, served))
    clock.now += 361
    await settler.drain()
    assert (await row()).state == "settled"


async def test_a_payment_whose_stored_words_are_damaged_does_not_hold_up_the_others(
    settler, merchant, payer, served, row
):
    answer_id = await merchant.begin(payer, payload={}, flow="upfront")
    outcome = await settler.settle_answer(answer_id)
    await settler.drain()
    assert (outcome.state, "cannot be read" in outcome.note) == ("claimed", True)
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


async def test_a_node_that_lags_is_no_proof_that_a_payment_was_cancelled(
    settler, merchant, payer, served, row, monkeypatch
):
    """Used on the chain, and no log yet: as between two nodes behind one address."""
    await merchant.ledger.take([served.id])
    merchant.send(merchant.transfer(payer, served))

    async def no_logs(*_):
        return []

    with monkeypatch.context() as lagging:
        lagging.setattr(merchant.reads, "_logs", no_logs)
        await settler.recover()
        await settler.drain()
    assert (await row()).state == "served"  # to be looked at again
    await settler.settle_answer(served.answer_id)
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


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
    take = merchant.ledger.take

    async def take_and_fail(ids):
        await take(ids)
        raise LedgerUnavailable("The ledger cannot be written: the connection was lost.")

    with monkeypatch.context() as failing:
        failing.setattr(merchant.ledger, "take", take_and_fail)
        await settler.drain()
    assert ((await row()).state, (await row()).attempts) == ("settling", 1)
    await settler.drain()
    clock.now += 1
    await settler.drain()
    assert ((await row()).state, merchant.balance()) == ("settled", 10_000)


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
