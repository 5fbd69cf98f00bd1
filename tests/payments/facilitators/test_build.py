"""The settings choose the facilitators, and what they lack is named."""

import base64
import json
import sys

import pytest

from tinybrain.config import Settings
from tinybrain.devnet.chain import NETWORK
from tinybrain.devnet.wallets import private_key
from tinybrain.errors import ConfigError, PaymentServiceError
from tinybrain.payments.facilitators import build_gas_wallet, build_settler, build_verifier

CDP_KEYS = {
    "cdp_api_key_id": "id",
    "cdp_api_key_secret": base64.b64encode(bytes(range(64))).decode(),
}


@pytest.fixture
def settings(dead_url):
    def settings(facilitator, **fields):
        values = {"network": NETWORK, "rpc_url": dead_url, "facilitator": facilitator}
        return Settings(_env_file=None, **(values | fields))

    return settings


@pytest.mark.chain
@pytest.mark.parametrize("last", ["a URL", "own"])
async def test_a_payment_is_settled_by_the_first_in_the_order_that_works(
    chain, good_url, dead_url, settings, sign, terms, store, last
):
    failed = []
    key = private_key(chain.new_wallet(0))
    order = f"{dead_url},{good_url if last == 'a URL' else last}"
    configured = settings(order, rpc_url=chain.url, gas_private_key=key)
    verifier = build_verifier(configured, on_failure=failed.append)
    settler = build_settler(
        configured, build_gas_wallet(configured, store), on_failure=failed.append
    )
    payment = await sign(chain.new_wallet())
    assert (await verifier.verify(payment, terms)).is_valid
    result = await settler.settle(payment, terms)
    assert chain.web3.eth.get_transaction_receipt(result.transaction)["status"] == 1
    assert chain.balance(terms.pay_to) == 10_000
    assert failed == [dead_url.removeprefix("http://")] * 2
    await settler.aclose()
    await verifier.aclose()


@pytest.mark.chain
async def test_a_verifier_needs_no_key_and_refuses_to_settle(chain, settings, sign, terms):
    verifier = build_verifier(settings("own", rpc_url=chain.url))
    payment = await sign(chain.new_wallet())
    assert (await verifier.verify(payment, terms)).is_valid
    with pytest.raises(ConfigError, match="verifies payments only"):
        await verifier.settle(payment, terms)
    await verifier.aclose()


@pytest.mark.parametrize(
    ("facilitator", "fields", "message"),
    [
        (None, {}, "TINYBRAIN_FACILITATOR is missing"),
        ("own,https://x.example,own", {"gas_private_key": "1" * 64}, "names one twice"),
        ("https://x.example,own", {}, "TINYBRAIN_GAS_PRIVATE_KEY"),
        ("cdp", {}, "CDP_API_KEY_ID"),
        ("cdp", {"cdp_api_key_id": "id"}, "CDP_API_KEY_SECRET"),
        ("cdp", CDP_KEYS | {"cdp_api_key_secret": "a typo"}, "CDP_API_KEY_SECRET cannot be used"),
    ],
)
def test_what_is_missing_or_wrong_is_named(settings, store, facilitator, fields, message):
    configured = settings(facilitator, **fields)
    with pytest.raises(ConfigError, match=message) as caught:
        build_settler(configured, build_gas_wallet(configured, store))
    assert "a typo" not in str(caught.value)


def test_without_coinbases_package_the_extra_is_named(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "cdp.x402", None)
    with pytest.raises(ConfigError, match=r"pip install tinybrain\[cdp\]"):
        build_verifier(settings("cdp", **CDP_KEYS))


async def test_a_failure_is_told_without_the_secrets_of_its_url(settings, payment, terms, caplog):
    failed = []
    verifier = build_verifier(
        settings("http://user:word@127.0.0.1:9/token"), on_failure=failed.append
    )
    with pytest.raises(PaymentServiceError):
        await verifier.verify(payment, terms)
    assert failed == ["127.0.0.1:9"]
    assert "127.0.0.1:9" in caplog.text
    assert not any(secret in caplog.text for secret in ("user", "word", "token"))
    await verifier.aclose()


async def test_coinbase_gets_a_fresh_token_with_every_call(
    start_server, answer, settings, payment, terms
):
    server = await start_server(answer(200, {"isValid": False, "success": False}))
    facilitator = build_settler(settings("cdp", **CDP_KEYS), None)
    (link,) = facilitator._links
    assert link.facilitator._url == "https://api.cdp.coinbase.com/platform/v2/x402"
    link.facilitator._url = server.url
    await facilitator.verify(payment, terms)
    await facilitator.verify(payment, terms)
    await facilitator.settle(payment, terms)
    headers = [request.headers["authorization"] for request in server.requests]
    assert len(set(headers)) == 3
    assert [_uri(header) for header in headers] == ["verify", "verify", "settle"]
    await facilitator.aclose()


def _uri(header):
    """The operation that a bearer token is good for."""
    kind, token = header.split(" ")
    assert kind == "Bearer"
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    (uri,) = claims["uris"]
    return uri.removeprefix("POST api.cdp.coinbase.com/platform/v2/x402/")
