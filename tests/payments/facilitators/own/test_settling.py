"""A settlement's outcome is exact, and no gas is spent for nothing."""

import asyncio

import pytest
from x402 import x402Client
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.schemas import PaymentRequired

from tests.payments.facilitators.own.paying import PRICE, call_token, own, pay, reasons
from tinybrain.errors import PaymentServiceError

pytestmark = pytest.mark.chain


@pytest.fixture
def spent_gas(chain, facilitator):
    """How much the facilitator paid since the test began."""
    (address,) = facilitator.supported().signers["eip155:*"]
    before = chain.web3.eth.get_balance(address)
    return lambda: before - chain.web3.eth.get_balance(address)


async def test_a_stock_clients_payment_is_verified_and_settled_exactly(chain, facilitator, terms):
    payer = chain.new_wallet()
    client = x402Client()
    register_exact_evm_client(client, payer)
    payment = await client.create_payment_payload(PaymentRequired(x402_version=2, accepts=[terms]))
    verdict = await facilitator.verify(payment, terms)
    assert (verdict.is_valid, verdict.payer) == (True, payer.address)
    result = await facilitator.settle(payment, terms)
    assert result.success
    assert chain.web3.eth.get_transaction_receipt(result.transaction)["status"] == 1
    assert chain.balance(terms.pay_to) == PRICE
    assert chain.balance(payer.address) == 1_000_000 - PRICE


async def test_a_replay_is_refused_without_spending_gas(facilitator, terms, chain, spent_gas):
    payment = pay(chain.new_wallet(), terms)
    await facilitator.settle(payment, terms)
    spent = spent_gas()
    replay = await facilitator.settle(payment, terms)
    assert (replay.success, replay.error_reason) == (False, "invalid_exact_evm_nonce_already_used")
    assert spent_gas() == spent > 0


async def test_of_two_copies_at_once_one_is_settled(chain, facilitator, terms):
    payment = pay(chain.new_wallet(), terms)
    results = await facilitator.settle_many([(payment, terms)] * 2)
    results += await asyncio.gather(*(facilitator.settle(payment, terms) for _ in range(2)))
    assert [result.success for result in results].count(True) == 1
    assert chain.balance(terms.pay_to) == PRICE


async def test_a_payment_that_another_submitted_first_is_not_claimed_as_ours(
    chain, facilitator, terms, mining
):
    payment = pay(chain.new_wallet(), terms)
    mining.pause()
    settling = asyncio.create_task(facilitator.settle(payment, terms))
    call_token(chain, chain.new_wallet(0), await mining.next_call())
    mining.mine()
    result = await settling
    assert result.error_reason == "invalid_exact_evm_nonce_already_used"
    assert chain.balance(terms.pay_to) == PRICE


@pytest.mark.parametrize("size", [1, 3])
async def test_what_is_not_mined_in_time_is_pending_under_its_hash(chain, terms, mining, size):
    facilitator = own(chain, confirmation_timeout_s=0.2)
    payer = chain.new_wallet()
    mining.pause()
    orders = [(pay(payer, terms), terms) for _ in range(size)]
    results = await facilitator.settle_many(orders)
    assert reasons(results) == ["settlement_pending"] * size
    facilitator._confirmation_timeout_s = 10
    again = asyncio.create_task(facilitator.settle_many(orders))
    await asyncio.sleep(0.05)
    mining.mine()
    results += await again
    assert [result.success for result in results] == [False] * size + [True] * size
    (transaction,) = {result.transaction for result in results}
    sender = chain.web3.eth.get_transaction(transaction)["from"]
    assert chain.web3.eth.get_transaction_count(sender) == 1
    await facilitator.aclose()


@pytest.mark.parametrize("size", [1, 3])
async def test_a_wallet_without_gas_does_not_refuse_the_payments(chain, terms, size):
    facilitator = own(chain, key=f"0x{'42' * 32}")
    payer = chain.new_wallet()
    results = await facilitator.settle_many([(pay(payer, terms), terms) for _ in range(size)])
    assert all(isinstance(result, PaymentServiceError) for result in results)
    assert "holds too little" in results[0].message
    await facilitator.aclose()
