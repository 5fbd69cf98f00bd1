"""One attempt at a payment, and what the chain says became of it, whatever was answered."""

import pytest
from x402.schemas import SettleResponse

from tests.payments.settling import NETWORK, LosesAnswers
from tinybrain.devnet.token import MULTICALL3
from tinybrain.errors import PaymentServiceError

pytestmark = pytest.mark.chain
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


async def test_an_expired_payment_has_no_reason_in_its_note_if_none_was_told(
    settler, merchant, served, row
):
    await merchant.ledger.take([served.id])
    merchant.pass_time(361)
    await settler.drain()
    assert ((await row()).state, (await row()).note) == (
        "debt",
        "the authorization expired unsettled",
    )


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
