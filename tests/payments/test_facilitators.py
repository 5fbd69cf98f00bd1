"""Facilitators: a refusal is an answer, a broken line never is one."""

import asyncio
import base64
import socket
import sys

import httpx
import pytest
from x402 import x402Client
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.schemas import PaymentRequired, PaymentRequirements

from tinybrain.config import USDC_BY_NETWORK, Settings
from tinybrain.devnet.chain import NETWORK
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import ConfigError, PaymentServiceError
from tinybrain.payments.facilitators import (
    HttpFacilitator,
    OwnFacilitator,
    ReadOnlyFacilitator,
    build_settler,
    build_verifier,
)
from tinybrain.payments.wallet import HotWallet

pytestmark = pytest.mark.chain
PRICE = 10_000
DEAD_URL = "http://127.0.0.1:9"


def requirements(pay_to, amount=PRICE):
    token = USDC_BY_NETWORK[NETWORK]
    return PaymentRequirements(
        scheme="exact",
        network=NETWORK,
        asset=token.address,
        amount=str(amount),
        pay_to=pay_to,
        max_timeout_seconds=300,
        extra={"name": token.name, "version": token.version},
    )


async def pay(wallet, terms):
    client = x402Client()
    register_exact_evm_client(client, wallet)
    return await client.create_payment_payload(PaymentRequired(x402_version=2, accepts=[terms]))


def own(chain, url=None, key=None):
    wallet = HotWallet(key or private_key(chain.new_wallet(0)), url or chain.url, rpc_timeout_s=1)
    return OwnFacilitator(wallet, NETWORK)


@pytest.fixture
async def facilitator(chain):
    facilitator = own(chain)
    yield facilitator
    await facilitator.aclose()


@pytest.fixture
def terms(chain):
    return requirements(chain.new_wallet(0).address)


async def test_a_good_payment_is_verified_and_settled_exactly(chain, facilitator, terms):
    payer = chain.new_wallet()
    payment = await pay(payer, terms)
    assert (await facilitator.verify(payment, terms)).is_valid
    result = await facilitator.settle(payment, terms)
    assert result.success
    assert chain.web3.eth.get_transaction_receipt(result.transaction)["status"] == 1
    assert chain.balance(terms.pay_to) == PRICE
    assert chain.balance(payer.address) == 1_000_000 - PRICE


async def test_twenty_concurrent_settlements_all_succeed(chain, facilitator, terms):
    payer = chain.new_wallet()
    payments = [await pay(payer, terms) for _ in range(20)]
    results = await asyncio.gather(*(facilitator.settle(each, terms) for each in payments))
    assert [result.error_reason for result in results if not result.success] == []
    assert chain.balance(terms.pay_to) == 20 * PRICE


async def test_a_replay_is_refused_without_spending_gas(chain, facilitator, terms):
    payment = await pay(chain.new_wallet(), terms)
    await facilitator.settle(payment, terms)
    (address,) = facilitator.supported().signers["eip155:*"]
    before = chain.web3.eth.get_balance(address)
    replay = await facilitator.settle(payment, terms)
    assert (replay.success, replay.error_reason) == (
        False,
        "invalid_exact_evm_nonce_already_used",
    )
    assert chain.web3.eth.get_balance(address) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": "1"}, "invalid_exact_evm_payload_authorization_value_mismatch"),
        ({"validBefore": "1"}, "invalid_exact_evm_payload_authorization_valid_before"),
        ({"nonce": f"0x{'11' * 32}"}, "invalid_exact_evm_payload_signature"),
        ({"value": "a lot"}, "invalid_payload"),
    ],
)
async def test_a_payment_that_was_changed_is_refused(chain, facilitator, terms, change, reason):
    payment = await pay(chain.new_wallet(), terms)
    payment.payload["authorization"] |= change
    verdict = await facilitator.verify(payment, terms)
    assert (verdict.is_valid, verdict.invalid_reason) == (False, reason)


async def test_a_payer_without_funds_is_refused(chain, facilitator, terms):
    verdict = await facilitator.verify(await pay(chain.new_wallet(0), terms), terms)
    assert verdict.invalid_reason == "invalid_exact_evm_insufficient_balance"


async def test_a_dead_chain_is_no_verdict(chain, terms):
    facilitator = own(chain, url=DEAD_URL)
    payment = await pay(chain.new_wallet(), terms)
    with pytest.raises(PaymentServiceError):
        await facilitator.verify(payment, terms)
    with pytest.raises(PaymentServiceError):
        await facilitator.settle(payment, terms)
    await facilitator.aclose()


async def test_a_silent_chain_is_no_verdict(chain, terms):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        facilitator = own(chain, url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(PaymentServiceError):
            await facilitator.verify(await pay(chain.new_wallet(), terms), terms)
        await facilitator.aclose()


async def test_a_wallet_without_gas_does_not_refuse_the_payment(chain, terms):
    facilitator = own(chain, key=f"0x{'42' * 32}")
    payment = await pay(chain.new_wallet(), terms)
    with pytest.raises(PaymentServiceError):
        await facilitator.settle(payment, terms)
    await facilitator.aclose()


async def test_a_verifier_needs_no_key_and_refuses_to_settle(chain, terms):
    verifier = ReadOnlyFacilitator(chain.url, NETWORK)
    payment = await pay(chain.new_wallet(), terms)
    assert (await verifier.verify(payment, terms)).is_valid
    with pytest.raises(ConfigError):
        await verifier.settle(payment, terms)
    await verifier.aclose()


async def test_a_dead_facilitator_is_no_verdict(chain, terms):
    facilitator = HttpFacilitator(DEAD_URL)
    payment = await pay(chain.new_wallet(), terms)
    with pytest.raises(PaymentServiceError):
        await facilitator.verify(payment, terms)
    with pytest.raises(PaymentServiceError):
        await facilitator.settle(payment, terms)
    await facilitator.aclose()


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [(400, b'{"isValid": false, "invalidReason": "x"}', True), (500, b"{}", False)],
)
async def test_a_4xx_with_a_verdict_is_a_refusal_and_a_5xx_is_none(
    chain, terms, status, body, refused
):
    facilitator = HttpFacilitator("http://facilitator.test")
    facilitator._http._transport = httpx.MockTransport(
        lambda _: httpx.Response(status, content=body)
    )
    payment = await pay(chain.new_wallet(), terms)
    if refused:
        assert not (await facilitator.verify(payment, terms)).is_valid
    else:
        with pytest.raises(PaymentServiceError):
            await facilitator.verify(payment, terms)
    await facilitator.aclose()


def settings(**fields):
    return Settings(_env_file=None, network=NETWORK, rpc_url=DEAD_URL, **fields)


async def test_the_settings_choose_the_facilitator(chain):
    url = settings(facilitator="https://facilitator.example")
    assert isinstance(build_verifier(url), HttpFacilitator)
    assert isinstance(build_settler(url), HttpFacilitator)
    mine = settings(facilitator="own", gas_private_key="42" * 32)
    assert isinstance(build_verifier(mine), ReadOnlyFacilitator)
    assert type(build_settler(mine)) is OwnFacilitator


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, "TINYBRAIN_FACILITATOR"),
        ({"facilitator": "own"}, "TINYBRAIN_GAS_PRIVATE_KEY"),
        ({"facilitator": "cdp"}, "CDP_API_KEY_ID"),
    ],
)
def test_what_is_missing_is_named(fields, missing):
    with pytest.raises(ConfigError, match=missing):
        build_settler(settings(**fields))


CDP_KEYS = {
    "cdp_api_key_id": "id",
    "cdp_api_key_secret": base64.b64encode(bytes(range(64))).decode(),
}


def test_coinbase_is_asked_with_the_api_key():
    facilitator = build_settler(settings(facilitator="cdp", **CDP_KEYS))
    assert "api.cdp.coinbase.com" in facilitator._sdk.url
    assert facilitator._sdk._get_settle_headers()["Authorization"].startswith("Bearer ")


def test_without_coinbases_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cdp.x402", None)
    with pytest.raises(ConfigError, match=r"pip install tinybrain\[cdp\]"):
        build_settler(settings(facilitator="cdp", **CDP_KEYS))
