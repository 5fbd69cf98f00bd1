"""The devnet's facilitator, through the SDK's own client."""

import httpx
import pytest
from x402 import x402Client
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.schemas import PaymentRequired, PaymentRequirements

from tinybrain.devnet.chain import NETWORK
from tinybrain.devnet.facilitator import MAX_BODY_BYTES
from tinybrain.devnet.token import USDC

pytestmark = pytest.mark.chain


@pytest.fixture
async def client(devnet):
    async with HTTPFacilitatorClient(FacilitatorConfig(url=devnet.facilitator_url)) as client:
        yield client


@pytest.fixture
def terms(devnet):
    return PaymentRequirements(
        scheme="exact",
        network=NETWORK,
        asset=USDC,
        amount="2500",
        pay_to=devnet.wallets.treasury.address,
        max_timeout_seconds=300,
        extra={"name": "USDC", "version": "2"},
    )


@pytest.fixture
async def payment(devnet, terms):
    payer = x402Client()
    register_exact_evm_client(payer, devnet.wallets.caller)
    return await payer.create_payment_payload(PaymentRequired(x402_version=2, accepts=[terms]))


def test_it_names_what_it_supports_and_its_wallet(devnet, client):
    supported = client.get_supported()
    kinds = [(kind.x402_version, kind.scheme, kind.network) for kind in supported.kinds]
    assert kinds == [(2, "exact", NETWORK)]
    assert supported.signers == {"eip155:*": [devnet.wallets.facilitator.address]}


async def test_it_verifies_settles_and_refuses_a_replay(client, payment, terms):
    assert (await client.verify(payment, terms)).is_valid
    assert (await client.settle(payment, terms)).success
    verdict = await client.verify(payment, terms)
    assert verdict.invalid_reason == "invalid_exact_evm_nonce_already_used"


@pytest.mark.parametrize(("body", "status"), [("{", 400), ("x" * (MAX_BODY_BYTES + 1), 413)])
def test_a_bad_body_is_refused_with_an_error(devnet, body, status):
    answer = httpx.post(f"{devnet.facilitator_url}/verify", content=body, timeout=60)
    assert (answer.status_code, "error" in answer.json()) == (status, True)
