"""The own facilitator: the token's word, exact outcomes, and no gas for nothing."""

import asyncio
import os
import socket
import time

import pytest
from web3 import Web3
from x402 import x402Client
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.schemas import PaymentPayload, PaymentRequired, PaymentRequirements

from tinybrain.config import USDC_BY_NETWORK
from tinybrain.devnet.chain import NETWORK, control
from tinybrain.devnet.facilitator import NoStore
from tinybrain.devnet.token import ISSUER, MULTICALL3, USDC, _acting_as, _send
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import ConfigError, PaymentServiceError
from tinybrain.payments.eip3009 import Authorization, Domain, sign
from tinybrain.payments.facilitators.own import OwnFacilitator
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.wallet import HotWallet

pytestmark = pytest.mark.chain
PRICE = 10_000
TOKEN = USDC_BY_NETWORK[NETWORK]
DOMAIN = Domain.of(NETWORK, TOKEN)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SAYS_YES = "0x631626ba7e60e01b60005260206000f3"
"""A contract that answers every call with ERC-1271's magic value."""
BURNS_GAS = "0x5b600056"
"""A contract that loops until the gas is gone."""


def terms_of(pay_to):
    return PaymentRequirements(
        scheme="exact",
        network=NETWORK,
        asset=TOKEN.address,
        amount=str(PRICE),
        pay_to=pay_to,
        max_timeout_seconds=300,
        extra={"name": TOKEN.name, "version": TOKEN.version},
    )


def pay(wallet, terms, **changes):
    """What a stock client sends, built faster."""
    fields = {
        "payer": wallet.address,
        "to": terms.pay_to,
        "value": int(terms.amount),
        "valid_after": 0,
        "valid_before": int(time.time()) + 300,
        "nonce": f"0x{os.urandom(32).hex()}",
    }
    authorization = Authorization(**(fields | changes))
    signed = {
        "authorization": authorization.to_wire(),
        "signature": sign(authorization, private_key(wallet), DOMAIN),
    }
    return PaymentPayload(x402_version=2, accepted=terms, payload=signed)


def own(chain, url=None, key=None, **options):
    rpc = Rpc(url or chain.url, timeout_s=1)
    wallet = HotWallet(key or private_key(chain.new_wallet(0)), rpc, NETWORK, NoStore())
    return OwnFacilitator(rpc, wallet, NETWORK, TOKEN.address, **options)


def issuer_calls(chain, function, *arguments):
    with _acting_as(chain.web3, ISSUER):
        data = chain.token.encode_abi(function, args=arguments)
        _send(chain.web3, ISSUER, {"to": USDC, "data": data})


def call_token(chain, sender, data, **options):
    """Send a call without waiting for its receipt."""
    transaction = {"to": USDC, "data": data, "gas": 200_000, "chainId": 84532, "nonce": 0}
    transaction |= {"maxFeePerGas": 10**12, "maxPriorityFeePerGas": 10**11, "value": 0}
    signed = sender.sign_transaction(transaction | options)
    return chain.web3.eth.send_raw_transaction(signed.raw_transaction)


def gas_of(chain, transaction):
    return chain.web3.eth.get_transaction_receipt(transaction)["gasUsed"]


def reasons(results):
    return [result.error_reason for result in results]


@pytest.fixture
async def facilitator(chain):
    facilitator = own(chain)
    yield facilitator
    await facilitator.aclose()


@pytest.fixture
def terms(chain):
    return terms_of(chain.new_wallet(0).address)


class Mining:
    """Stops the chain from mining, and mines one block."""

    def __init__(self, web3):
        self._web3 = web3

    def pause(self):
        self._web3.provider.make_request("evm_setAutomine", [False])

    def mine(self):
        control(self._web3, "mine", "0x1")

    def resume(self):
        self._web3.provider.make_request("evm_setAutomine", [True])
        self.mine()

    async def next_call(self):
        """The data of the first transaction that waits."""
        pool = self._web3.geth.txpool
        async with asyncio.timeout(5):
            while not (waiting := pool.content()["pending"]):  # noqa: ASYNC110  # anvil tells nobody
                await asyncio.sleep(0.01)
        (by_nonce,) = waiting.values()
        return next(iter(by_nonce.values()))["input"]


@pytest.fixture
def mining(chain):
    mining = Mining(chain.web3)
    yield mining
    mining.resume()


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


async def test_fifty_payments_share_a_transaction_at_48_000_gas_each(chain, facilitator, terms):
    payer = chain.new_wallet()
    await facilitator.settle(pay(payer, terms), terms)
    results = await facilitator.settle_many([(pay(payer, terms), terms) for _ in range(50)])
    (transaction,) = {result.transaction for result in results if result.success}
    assert gas_of(chain, transaction) / 50 <= 48_000
    assert chain.balance(terms.pay_to) == 51 * PRICE


async def test_several_batches_are_in_flight_from_one_wallet(chain, facilitator, terms):
    payer = chain.new_wallet()
    batches = [[(pay(payer, terms), terms) for _ in range(6)] for _ in range(5)]
    batches += [[(pay(payer, terms), terms)] for _ in range(5)]
    results = await asyncio.gather(*map(facilitator.settle_many, batches))
    assert all(result.success for batch in results for result in batch)
    assert chain.balance(terms.pay_to) == 35 * PRICE


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": "1"}, "invalid_exact_evm_payload_authorization_value_mismatch"),
        ({"to": f"0x{'11' * 20}"}, "invalid_exact_evm_payload_recipient_mismatch"),
        ({"validBefore": "1"}, "invalid_exact_evm_payload_authorization_valid_before"),
        ({"validAfter": str(2**40)}, "invalid_exact_evm_payload_authorization_valid_after"),
        ({"nonce": f"0x{'11' * 32}"}, "invalid_exact_evm_payload_signature"),
        ({"value": "a lot"}, "invalid_payload"),
    ],
)
async def test_a_payment_that_was_changed_is_refused(chain, facilitator, terms, change, reason):
    payment = pay(chain.new_wallet(), terms)
    payment.payload["authorization"] |= change
    verdict = await facilitator.verify(payment, terms)
    assert (verdict.is_valid, verdict.invalid_reason) == (False, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scheme": "upto"}, "unsupported_scheme"),
        ({"network": "eip155:8453"}, "network_mismatch"),
        ({"asset": f"0x{'22' * 20}"}, "unsupported_asset"),
        ({"amount": "-"}, "invalid_payload"),
    ],
)
async def test_terms_that_it_does_not_serve_are_refused(chain, facilitator, terms, change, reason):
    others = terms.model_copy(update=change)
    payment = pay(chain.new_wallet(), terms).model_copy(update={"accepted": others})
    assert (await facilitator.verify(payment, others)).invalid_reason == reason


@pytest.mark.parametrize("change", ["bad", "high s"])
async def test_a_signature_that_the_token_refuses_is_refused(chain, facilitator, terms, change):
    payment = pay(chain.new_wallet(), terms)
    good = payment.payload["signature"]
    s, v = int(good[66:130], 16), int(good[130:], 16)
    bad = {"bad": f"0x{'1b' * 65}", "high s": f"{good[:66]}{ORDER - s:064x}{55 - v:02x}"}
    payment.payload["signature"] = bad[change]
    verdict = await facilitator.verify(payment, terms)
    assert verdict.invalid_reason == "invalid_exact_evm_payload_signature"


async def test_a_payer_without_funds_is_refused(chain, facilitator, terms):
    verdict = await facilitator.verify(pay(chain.new_wallet(0), terms), terms)
    assert verdict.invalid_reason == "invalid_exact_evm_insufficient_balance"


async def test_a_blacklisted_payer_is_refused(chain, facilitator, terms):
    payer = chain.new_wallet()
    issuer_calls(chain, "blacklist", payer.address)
    verdict = await facilitator.verify(pay(payer, terms), terms)
    assert verdict.invalid_reason == "invalid_exact_evm_account_blacklisted"


async def test_a_paused_token_is_named(chain, facilitator, terms):
    payment = pay(chain.new_wallet(), terms)
    issuer_calls(chain, "pause")
    try:
        verdict = await facilitator.verify(payment, terms)
    finally:
        issuer_calls(chain, "unpause")
    assert verdict.invalid_reason == "invalid_exact_evm_token_paused"


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


async def test_a_dead_chain_is_no_verdict(chain, terms):
    facilitator = own(chain, url="http://127.0.0.1:9")
    payment = pay(chain.new_wallet(), terms)
    with pytest.raises(PaymentServiceError):
        await facilitator.verify(payment, terms)
    with pytest.raises(PaymentServiceError):
        await facilitator.settle(payment, terms)
    results = await facilitator.settle_many([(pay(chain.new_wallet(), terms), terms)] * 2)
    assert isinstance(results[0], PaymentServiceError)
    await facilitator.aclose()


async def test_a_silent_chain_is_no_verdict(chain, terms):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        facilitator = own(chain, url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(PaymentServiceError):
            await facilitator.verify(pay(chain.new_wallet(), terms), terms)
        await facilitator.aclose()


@pytest.mark.parametrize("size", [1, 3])
async def test_a_wallet_without_gas_does_not_refuse_the_payments(chain, terms, size):
    facilitator = own(chain, key=f"0x{'42' * 32}")
    payer = chain.new_wallet()
    results = await facilitator.settle_many([(pay(payer, terms), terms) for _ in range(size)])
    assert all(isinstance(result, PaymentServiceError) for result in results)
    assert "holds too little" in results[0].message
    await facilitator.aclose()


async def test_an_address_without_a_token_verifies_nothing(chain, terms):
    nowhere = chain.new_wallet(0).address
    rpc = Rpc(chain.url)
    facilitator = OwnFacilitator(rpc, None, NETWORK, nowhere)
    others = terms.model_copy(update={"asset": nowhere})
    with pytest.raises(PaymentServiceError, match="no token"):
        await facilitator.verify(pay(chain.new_wallet(), others), others)
    await facilitator.aclose()


async def test_a_verifier_needs_no_key_and_refuses_to_settle(chain, terms):
    verifier = OwnFacilitator(Rpc(chain.url), None, NETWORK, TOKEN.address)
    payment = pay(chain.new_wallet(), terms)
    assert (await verifier.verify(payment, terms)).is_valid
    with pytest.raises(ConfigError):
        await verifier.settle(payment, terms)
    await verifier.aclose()
