"""An answer is paid for once, and what became of the money is not forgotten."""

import httpx
import pytest
from x402 import x402Client
from x402.http.utils import encode_payment_response_header
from x402.schemas import PaymentError, SettleResponse

from tests.payments.agent.buying import REFUSAL, ask
from tinybrain.devnet.upstream import PRICE
from tinybrain.errors import LedgerUnavailable, UpstreamError
from tinybrain.payments.ledger import Ledger

pytestmark = pytest.mark.chain


async def test_an_answer_is_bought_for_its_quote(open_agent, bought, spent, web3):
    async with open_agent() as agent:
        answer = await ask(agent)
    assert answer.status_code == 200
    (purchase,) = await bought()
    assert (purchase.state, purchase.amount, purchase.answer_id) == ("paid", PRICE, "ans_1")
    assert answer.extensions["tinybrain_cost"] == spent() == PRICE
    assert answer.extensions["tinybrain_transaction"] == purchase.transaction
    assert web3.eth.get_transaction_receipt(purchase.transaction)["status"] == 1


async def test_what_is_free_passes_through(open_agent, bought):
    async with open_agent() as agent:
        answer = await agent.get("models")
    assert (answer.status_code, await bought()) == (200, [])


@pytest.mark.parametrize("fault", ["lose", "break"])
async def test_a_lost_answer_is_asked_for_again_with_the_same_signature(
    open_agent, bought, spent, proxy, fault
):
    proxy.faults = [fault]
    async with open_agent(upstream_url=proxy.url) as agent:
        answer = await ask(agent)
    assert answer.status_code == 200
    assert len(proxy.signatures) == 2
    assert len(set(proxy.signatures)) == 1
    assert [purchase.state for purchase in await bought()] == ["paid"]
    assert spent() == PRICE


async def test_an_answer_lost_thrice_keeps_its_reservation_for_the_money_moved(
    open_agent, bought, spent, proxy
):
    proxy.faults = ["lose", "lose", "lose"]
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(httpx.TransportError):
            await ask(agent)
    (purchase,) = await bought()
    assert (purchase.state, purchase.nonce is None) == ("reserved", False)
    assert spent() == PRICE


async def test_a_paid_request_that_is_refused_keeps_its_reservation_until_the_chain_is_asked(
    open_agent, bought, spent, proxy
):
    proxy.faults = [REFUSAL]
    async with open_agent(upstream_url=proxy.url) as agent:
        answer = await ask(agent)
    assert (answer.status_code, "tinybrain_cost" in answer.extensions) == (500, False)
    assert [purchase.state for purchase in await bought()] == ["reserved"]
    assert spent() == 0


async def test_a_purchase_that_cannot_be_signed_is_given_back(
    open_agent, bought, proxy, monkeypatch
):
    async def refuse(*_):
        raise PaymentError("no")

    monkeypatch.setattr(x402Client, "create_payment_payload", refuse)
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(UpstreamError) as caught:
            await ask(agent)
    assert caught.value.code == "upstream_payment_terms"
    assert [purchase.state for purchase in await bought()] == ["released"]
    assert proxy.signatures == []


async def test_a_second_402_after_the_payment_is_not_paid(open_agent, bought, proxy, quoted):
    proxy.challenge = quoted()
    async with open_agent(upstream_url=proxy.url) as agent:
        assert (await ask(agent)).status_code == 402
    assert len(proxy.signatures) == 1
    assert [purchase.state for purchase in await bought()] == ["reserved"]


async def test_the_signature_is_noted_before_it_is_sent(open_agent, bought, proxy, monkeypatch):
    async def fail(*_, **__):
        raise LedgerUnavailable("The ledger cannot be written: it is gone.")

    monkeypatch.setattr(Ledger, "signed", fail)
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(LedgerUnavailable):
            await ask(agent)
    assert proxy.signatures == []


async def test_a_paid_request_follows_no_redirect(open_agent, bought, proxy):
    proxy.faults = [(307, {"Location": f"{proxy.url}/chat/completions"}, b"")]
    async with open_agent(upstream_url=proxy.url, follow_redirects=True) as agent:
        with pytest.raises(UpstreamError, match="not followed"):
            await ask(agent)
    assert len(proxy.signatures) == 1
    assert [purchase.state for purchase in await bought()] == ["reserved"]


@pytest.mark.parametrize("transaction", ["", "x" * 10_000, "0x12"])
async def test_a_receipt_without_a_transaction_leaves_it_to_the_chain(
    open_agent, bought, proxy, transaction
):
    told = SettleResponse(success=True, transaction=transaction, network="eip155:84532")
    proxy.faults = [{"PAYMENT-RESPONSE": encode_payment_response_header(told)}]
    async with open_agent(upstream_url=proxy.url) as agent:
        assert (await ask(agent)).status_code == 200
    assert [purchase.state for purchase in await bought()] == ["reserved"]
