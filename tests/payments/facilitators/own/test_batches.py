"""Payments share a transaction; none of them harms another."""

import asyncio
import time

import pytest
from web3 import Web3

from tests.payments.facilitators.own.paying import PRICE, call_token, issuer_calls, pay, reasons
from tinybrain.devnet.chain import control
from tinybrain.devnet.token import MULTICALL3

pytestmark = pytest.mark.chain
SAYS_YES = "0x631626ba7e60e01b60005260206000f3"
"""A contract that answers every call with ERC-1271's magic value."""
BURNS_GAS = "0x5b600056"
"""A contract that loops until the gas is gone."""


async def test_fifty_payments_share_a_transaction_at_48_000_gas_each(chain, facilitator, terms):
    payer = chain.new_wallet()
    await facilitator.settle(pay(payer, terms), terms)
    results = await facilitator.settle_many([(pay(payer, terms), terms) for _ in range(50)])
    (transaction,) = {result.transaction for result in results if result.success}
    gas = chain.web3.eth.get_transaction_receipt(transaction)["gasUsed"]
    assert gas / 50 <= 48_000
    assert chain.balance(terms.pay_to) == 51 * PRICE


async def test_several_batches_are_in_flight_from_one_wallet(chain, facilitator, terms):
    payer = chain.new_wallet()
    batches = [[(pay(payer, terms), terms) for _ in range(6)] for _ in range(5)]
    batches += [[(pay(payer, terms), terms)] for _ in range(5)]
    results = await asyncio.gather(*map(facilitator.settle_many, batches))
    assert all(result.success for batch in results for result in batch)
    assert chain.balance(terms.pay_to) == 35 * PRICE


async def test_in_a_batch_each_is_judged_by_itself_before_gas_is_spent(chain, facilitator, terms):
    payer, small = chain.new_wallet(), chain.new_wallet(0)
    issuer_calls(chain, "mint", small.address, PRICE)
    replay = pay(payer, terms)
    await facilitator.settle(replay, terms)
    forged = pay(payer, terms)
    forged.payload["authorization"] |= {"to": small.address}
    payments = [pay(payer, terms), replay, pay(small, terms), forged, pay(small, terms)]
    results = await facilitator.settle_many([(each, terms) for each in payments])
    assert reasons(results) == [
        None,
        "invalid_exact_evm_nonce_already_used",
        None,
        "invalid_exact_evm_payload_recipient_mismatch",
        "invalid_exact_evm_insufficient_balance",
    ]
    assert chain.balance(terms.pay_to) == 3 * PRICE
    receipt = chain.web3.eth.get_transaction_receipt(results[0].transaction)
    assert len(receipt["logs"]) == 4


async def test_what_fails_between_simulation_and_block_fails_alone(
    chain, facilitator, terms, mining
):
    payer, thief = chain.new_wallet(), chain.new_wallet()
    payments = [pay(each, terms) for each in (payer, thief, payer)]
    mining.pause()
    settling = asyncio.create_task(facilitator.settle_many([(each, terms) for each in payments]))
    await mining.next_call()
    drain = chain.token.encode_abi("transfer", args=[payer.address, 1_000_000])
    call_token(chain, thief, drain)  # pays more, so it stands first in the block
    mining.mine()
    results = await settling
    assert reasons(results) == [None, "invalid_exact_evm_insufficient_balance", None]
    assert chain.balance(terms.pay_to) == 2 * PRICE


async def test_a_contract_is_settled_alone(chain, facilitator, terms):
    contract, payer = chain.new_wallet(), chain.new_wallet()
    control(chain.web3, "setCode", contract.address, SAYS_YES)
    payments = [pay(each, terms) for each in (payer, contract, payer)]
    first, alone, third = await facilitator.settle_many([(each, terms) for each in payments])
    assert first.success
    assert alone.success
    assert first.transaction == third.transaction != alone.transaction


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_payer_whose_code_burns_gas_harms_no_other(
    chain, facilitator, terms, noticed, monkeypatch
):
    burner, payer = chain.new_wallet(), chain.new_wallet()
    code = chain.new_wallet(0).address
    control(chain.web3, "setCode", code, BURNS_GAS)
    control(chain.web3, "setCode", burner.address, f"0xef0100{code[2:]}")  # EIP-7702
    if not noticed:  # as if the code came a moment after the look

        async def nothing(addresses):
            return {address for address in addresses if address == MULTICALL3.lower()}

        await facilitator.verify(pay(payer, terms), terms)
        monkeypatch.setattr(facilitator._checks, "holding_code", nothing)
    payments = [pay(each, terms) for each in (burner, payer, payer)]
    started = time.monotonic()
    results = await facilitator.settle_many([(each, terms) for each in payments])
    assert reasons(results) == ["invalid_exact_evm_payload_signature", None, None]
    assert time.monotonic() - started < facilitator._confirmation_timeout_s / 5


async def test_without_multicall3_each_is_settled_by_itself(chain, facilitator, terms):
    payer = chain.new_wallet()
    code = chain.web3.eth.get_code(Web3.to_checksum_address(MULTICALL3)).to_0x_hex()
    control(chain.web3, "setCode", MULTICALL3, "0x")
    try:
        results = await facilitator.settle_many([(pay(payer, terms), terms) for _ in range(3)])
    finally:
        control(chain.web3, "setCode", MULTICALL3, code)
    assert len({result.transaction for result in results if result.success}) == 3
