"""Failover: a broken facilitator loses no payment, and none is ever settled twice."""

import asyncio

import httpx
import pytest

from tinybrain.devnet.chain import NETWORK
from tinybrain.errors import PaymentServiceError
from tinybrain.payments.facilitators.failover import OPEN_S, FailoverFacilitator
from tinybrain.payments.facilitators.http import HttpFacilitator

HASH = f"0x{'ab' * 32}"
LIMITS = {"verify_timeout_s": 0.4, "settle_timeout_s": 0.4}  # for who may never answer
PRICE = 10_000
YES = {"isValid": True, "success": True, "transaction": HASH, "network": NETWORK}
NO = {"isValid": False, "success": False, "invalidReason": "no_funds", "errorReason": "no_funds"}
PENDING = YES | {"success": False, "errorReason": "settlement_pending"}


@pytest.fixture
async def failover(clock):
    """Puts facilitators in an order; `limits` are the first's, `failures` has who failed."""
    made = []

    def build(first, *others, **limits):
        order = [HttpFacilitator(first, **limits), *map(HttpFacilitator, others)]
        named = list(zip(("first", "second", "third"), order, strict=False))
        failures = []
        made.append(FailoverFacilitator(named, on_failure=failures.append, clock=clock))
        made[-1].failures = failures
        return made[-1]

    yield build
    for facilitator in made:
        await facilitator.aclose()


@pytest.fixture
def settled_once(chain, terms):
    """Checks on the chain that a payment moved its money exactly once."""

    def check(payer):
        assert chain.balance(terms.pay_to) == PRICE
        assert chain.balance(payer.address) == 1_000_000 - PRICE

    return check


@pytest.mark.chain
async def test_a_broken_facilitators_payment_goes_to_the_next(
    broken_url, good_url, failover, chain, sign, terms, settled_once
):
    facilitator, payer = failover(broken_url, good_url, **LIMITS), chain.new_wallet()
    payment = await sign(payer)
    assert (await facilitator.verify(payment, terms)).is_valid
    result = await facilitator.settle(payment, terms)
    assert chain.web3.eth.get_transaction_receipt(result.transaction)["status"] == 1
    settled_once(payer)
    assert facilitator.failures == ["first", "first"]


@pytest.mark.chain
async def test_an_unproven_settlement_goes_to_the_next(
    lying_url, good_url, failover, chain, sign, terms, settled_once
):
    payer = chain.new_wallet()
    result = await failover(lying_url, good_url).settle(await sign(payer), terms)
    assert result.success
    settled_once(payer)


async def forward(request, url):
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.post(f"{url}{request.path}", content=request.body)).json()


@pytest.mark.chain
@pytest.mark.parametrize("hang", [False, True])
async def test_a_settlement_whose_answer_was_lost_is_unknown_and_no_refusal(
    start_server, good_url, failover, chain, sign, terms, settled_once, hang
):
    async def settle_and_lose_the_answer(request, writer):
        await forward(request, good_url)
        if hang:
            await asyncio.Event().wait()

    first = await start_server(settle_and_lose_the_answer)
    limit_s = 5 if hang else 30  # a real settlement runs within it
    facilitator = failover(first.url, good_url, settle_timeout_s=limit_s)
    payer = chain.new_wallet()
    with pytest.raises(PaymentServiceError, match="nonce_already_used"):
        await facilitator.settle(await sign(payer), terms)
    settled_once(payer)


@pytest.mark.chain
async def test_one_payment_settled_twice_at_once_moves_money_once(
    start_server, answer, good_url, failover, chain, sign, terms, settled_once
):
    broken = await start_server(answer(500, {}))
    facilitators = [failover(broken.url, good_url), failover(good_url)]
    payer = chain.new_wallet()
    payment = await sign(payer)
    await asyncio.gather(
        *(facilitator.settle(payment, terms) for facilitator in facilitators),
        return_exceptions=True,
    )
    settled_once(payer)


@pytest.mark.chain
async def test_of_many_orders_only_the_unknown_ones_go_to_the_next(
    start_server, answer, good_url, failover, chain, sign, terms
):
    async def lose_every_other(request, writer):
        if len(first.requests) % 2:
            await answer(200, await forward(request, good_url))(request, writer)

    first = await start_server(lose_every_other)
    payers = [chain.new_wallet() for _ in range(6)]
    facilitator = failover(first.url, good_url)
    results = await facilitator.settle_many([(await sign(payer), terms) for payer in payers])
    assert [result.success for result in results] == [True] * 6
    assert [result.payer for result in results] == [payer.address for payer in payers]
    assert chain.balance(terms.pay_to) == 6 * PRICE
    assert facilitator.failures == ["first"] * 3


async def test_a_refusal_is_final(start_server, answer, failover, payment, terms):
    first, second = [await start_server(answer(200, body)) for body in (NO, YES)]
    facilitator = failover(first.url, second.url)
    assert not (await facilitator.verify(payment, terms)).is_valid
    assert (await facilitator.settle(payment, terms)).error_reason == "no_funds"
    assert second.requests == facilitator.failures == []


async def test_a_pending_settlement_stops_the_order(start_server, answer, failover, payment, terms):
    first, second = [await start_server(answer(200, body)) for body in (PENDING, YES)]
    result = await failover(first.url, second.url).settle(payment, terms)
    assert (result.error_reason, result.transaction) == ("settlement_pending", HASH)
    assert second.requests == []


async def test_a_pending_settlement_counts_after_a_failure_too(
    start_server, answer, failover, dead_url, payment, terms
):
    second = await start_server(answer(200, PENDING))
    result = await failover(dead_url, second.url).settle(payment, terms)
    assert result.error_reason == "settlement_pending"


async def test_any_refusal_after_an_unknown_outcome_leaves_it_unknown(
    start_server, answer, failover, dead_url, payment, terms
):
    second, third = [await start_server(answer(200, body)) for body in (NO, YES)]
    with pytest.raises(PaymentServiceError, match="no_funds"):
        await failover(dead_url, second.url, third.url).settle(payment, terms)
    assert third.requests == []


async def test_if_all_fail_the_outcome_is_unknown(failover, dead_url, payment, terms):
    facilitator = failover(dead_url, dead_url)
    with pytest.raises(PaymentServiceError):
        await facilitator.verify(payment, terms)
    [result] = await facilitator.settle_many([(payment, terms)])
    assert isinstance(result, PaymentServiceError)
    assert facilitator.failures == ["first", "second"] * 2


async def test_after_three_failures_it_is_skipped_until_one_trial_succeeds(
    start_server, answer, failover, clock, payment, terms
):
    first, second = [await start_server(answer(status, YES)) for status in (500, 200)]
    facilitator = failover(first.url, second.url)

    async def ask(times):
        await asyncio.gather(*(facilitator.verify(payment, terms) for _ in range(times)))
        return len(first.requests)

    assert await ask(3) == 3
    assert await ask(3) == 3
    clock.now += OPEN_S
    assert await ask(3) == 4
    first.behaviour = answer(200, YES)
    clock.now += OPEN_S
    assert await ask(1) == 5
    assert await ask(3) == 8


async def test_failures_that_are_not_in_a_row_do_not_skip_it(
    start_server, answer, failover, payment, terms
):
    first, second = [await start_server(answer(200, YES)) for _ in range(2)]
    facilitator = failover(first.url, second.url)
    for status in (500, 500, 200, 500, 500, 200):
        first.behaviour = answer(status, YES)
        await facilitator.verify(payment, terms)
    assert len(first.requests) == 6


async def test_verifications_that_succeed_do_not_hide_settlements_that_fail(
    start_server, answer, failover, payment, terms
):
    async def verifies_only(request, writer):
        await answer(200 if request.path == "/verify" else 500, YES)(request, writer)

    first, second = await start_server(verifies_only), await start_server(answer(200, YES))
    facilitator = failover(first.url, second.url)
    for _ in range(5):
        await facilitator.verify(payment, terms)
        await facilitator.settle(payment, terms)
    asked = [request.path for request in first.requests]
    assert (asked.count("/verify"), asked.count("/settle")) == (5, 3)


async def test_if_all_would_be_skipped_all_are_asked(
    start_server, answer, failover, payment, terms
):
    servers = [await start_server(answer(500, YES)) for _ in range(2)]
    facilitator = failover(*(server.url for server in servers))
    for _ in range(5):
        with pytest.raises(PaymentServiceError):
            await facilitator.verify(payment, terms)
    assert [len(server.requests) for server in servers] == [5, 5]
    servers[1].behaviour = answer(200, YES)
    assert (await facilitator.verify(payment, terms)).is_valid


def test_an_order_of_nobody_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        FailoverFacilitator([])
