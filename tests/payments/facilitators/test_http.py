"""HttpFacilitator: whatever a facilitator does, it is a verdict or a PaymentServiceError, soon."""

import asyncio
import json
import time
from itertools import count

import pytest
from x402.http.facilitator_client_base import CreateHeadersAuthProvider

from tinybrain.devnet.chain import NETWORK
from tinybrain.errors import PaymentServiceError
from tinybrain.payments.facilitators.http import VERIFY_TIMEOUT_S, HttpFacilitator

HASH = f"0x{'ab' * 32}"
LIMITS = {"verify_timeout_s": 0.4, "settle_timeout_s": 0.4}  # for who may never answer
PRICE = 10_000


@pytest.fixture
async def connect():
    """Makes facilitators, and closes them."""
    made = []

    def connect(url, **options):
        made.append(HttpFacilitator(url, **options))
        return made[-1]

    yield connect
    for facilitator in made:
        await facilitator.aclose()


@pytest.mark.chain
async def test_a_good_payment_is_verified_and_settled(chain, good_url, connect, sign, terms):
    facilitator = connect(good_url)
    payer = chain.new_wallet()
    payment = await sign(payer)
    verdict = await facilitator.verify(payment, terms)
    assert (verdict.is_valid, verdict.payer) == (True, payer.address)
    result = await facilitator.settle(payment, terms)
    assert (result.success, result.network, result.payer) == (True, NETWORK, payer.address)
    assert chain.web3.eth.get_transaction_receipt(result.transaction)["status"] == 1
    assert chain.balance(terms.pay_to) == PRICE


@pytest.mark.chain
async def test_a_refusal_is_a_verdict_with_its_reason(chain, good_url, connect, sign, terms):
    facilitator = connect(good_url)
    payment = await sign(chain.new_wallet(0))
    verdict = await facilitator.verify(payment, terms)
    assert verdict.invalid_reason == "invalid_exact_evm_insufficient_balance"
    result = await facilitator.settle(payment, terms)
    assert (result.success, result.error_reason) == (False, verdict.invalid_reason)


@pytest.mark.parametrize("operation", ["verify", "settle"])
async def test_a_broken_facilitator_gives_no_verdict(
    broken_url, connect, payment, terms, operation, caplog
):
    ask = getattr(connect(broken_url, **LIMITS), operation)
    started = time.monotonic()
    with pytest.raises(PaymentServiceError) as caught:
        await ask(payment, terms)
    assert time.monotonic() - started < VERIFY_TIMEOUT_S  # so it was its own limit that ended it
    told = f"{caught.value} {caught.value.__cause__} {caplog.text}"
    assert "confidential" not in told


async def test_a_settlement_is_only_believed_with_its_proof(lying_url, connect, payment, terms):
    with pytest.raises(PaymentServiceError):
        await connect(lying_url).settle(payment, terms)


async def test_a_slow_facilitator_is_waited_for(start_server, answer, connect, payment, terms):
    async def slow(request, writer):
        await asyncio.sleep(0.2)
        await answer(200, {"isValid": True})(request, writer)

    server = await start_server(slow)
    assert (await connect(server.url).verify(payment, terms)).is_valid


async def test_a_redirect_is_not_followed(start_server, answer, connect, payment, terms):
    elsewhere = await start_server(answer(200, {"isValid": True}))
    moved = answer(307, {}, f"Location: {elsewhere.url}/verify")
    with pytest.raises(PaymentServiceError, match="HTTP status 307"):
        await connect((await start_server(moved)).url).verify(payment, terms)
    assert elsewhere.requests == []


async def test_a_compressed_answer_is_not_unpacked(start_server, answer, connect, payment, terms):
    server = await start_server(answer(200, {"isValid": True}, "Content-Encoding: gzip"))
    assert (await connect(server.url).verify(payment, terms)).is_valid
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [200, 400, 402, 422])
async def test_a_refusal_may_come_with_a_status_of_4xx(
    start_server, answer, connect, payment, terms, status
):
    body = {
        "isValid": False,
        "invalidReason": "x",
        "success": False,
        "errorReason": "y",
        "transaction": None,
        "payer": None,
    }
    facilitator = connect((await start_server(answer(status, body))).url)
    assert (await facilitator.verify(payment, terms)).invalid_reason == "x"
    assert (await facilitator.settle(payment, terms)).error_reason == "y"


async def test_a_reason_that_is_no_code_is_not_repeated(
    start_server, answer, connect, payment, terms
):
    body = {"isValid": False, "invalidReason": "x\nERROR forged line"}
    facilitator = connect((await start_server(answer(200, body))).url)
    assert (await facilitator.verify(payment, terms)).invalid_reason == "unexplained"


async def test_a_pending_settlement_keeps_its_hash(start_server, answer, connect, payment, terms):
    body = {
        "success": False,
        "errorReason": "settlement_pending",
        "transaction": HASH,
        "network": NETWORK,
    }
    result = await connect((await start_server(answer(200, body))).url).settle(payment, terms)
    assert (result.success, result.error_reason) == (False, "settlement_pending")
    assert result.transaction == HASH


async def test_the_network_may_have_its_v1_name(start_server, answer, connect, payment, terms):
    body = {"success": True, "transaction": HASH, "network": "base-sepolia"}
    result = await connect((await start_server(answer(200, body))).url).settle(payment, terms)
    assert (result.success, result.network) == (True, NETWORK)


async def test_the_order_is_sent_in_x402s_format(start_server, answer, connect, payment, terms):
    server = await start_server(answer(200, {"isValid": True}))
    await connect(f"{server.url}/x402/").verify(payment, terms)
    (request,) = server.requests
    assert request.path == "/x402/verify"
    assert json.loads(request.body) == {
        "x402Version": 2,
        "paymentPayload": payment.model_dump(by_alias=True, exclude_none=True),
        "paymentRequirements": terms.model_dump(by_alias=True, exclude_none=True),
    }


async def test_every_call_has_fresh_headers_of_its_own(
    start_server, answer, connect, payment, terms
):
    numbers = count(1)

    def headers():
        number = next(numbers)
        return {name: {"Authorization": f"{name} {number}"} for name in ("verify", "settle")}

    server = await start_server(answer(200, {"isValid": False, "success": False}))
    facilitator = connect(server.url, auth=CreateHeadersAuthProvider(headers))
    await facilitator.verify(payment, terms)
    await facilitator.settle(payment, terms)
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["verify 1", "settle 2"]


async def test_a_payload_too_deep_to_be_written_is_refused(
    start_server, answer, connect, payment, terms
):
    server = await start_server(answer(200, {"isValid": True}))
    for _ in range(500):
        payment.payload = {"deeper": payment.payload}
    facilitator = connect(server.url)
    assert (await facilitator.verify(payment, terms)).invalid_reason == "invalid_payload"
    assert (await facilitator.settle(payment, terms)).error_reason == "invalid_payload"
    assert server.requests == []
