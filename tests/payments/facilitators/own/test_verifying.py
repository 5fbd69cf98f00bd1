"""It refuses what the token would refuse; a chain that does not answer says nothing."""

import socket

import pytest

from tests.payments.facilitators.own.paying import TOKEN, issuer_calls, own, pay
from tinybrain.devnet.chain import NETWORK
from tinybrain.errors import ConfigError, PaymentServiceError
from tinybrain.payments.facilitators.own import OwnFacilitator
from tinybrain.payments.rpc import Rpc

pytestmark = pytest.mark.chain
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


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
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        facilitator = own(chain, url=url, timeout_s=1)
        with pytest.raises(PaymentServiceError):
            await facilitator.verify(pay(chain.new_wallet(), terms), terms)
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
