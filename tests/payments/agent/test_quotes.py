"""The agent signs the quotes that it may pay, to whom it may pay them, and no others."""

import base64
import time

import pytest
from eth_account import Account

from tests.payments.agent.buying import ask, payment_headers
from tinybrain.errors import UpstreamError

pytestmark = pytest.mark.chain
STRANGER = Account.create().address
NESTED = base64.b64encode(b"[" * 40_000).decode()


async def test_a_seller_other_than_the_pinned_one_is_not_paid(open_agent, bought, spent):
    async with open_agent(upstream_pay_to=STRANGER) as agent:
        with pytest.raises(UpstreamError) as caught:
            await ask(agent)
    assert caught.value.code == "upstream_payment_terms"
    assert (await bought(), spent()) == ([], 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "upto"},
        {"network": "eip155:8453"},
        {"asset": STRANGER},
        {"pay_to": STRANGER},
        {"amount": "5001"},
        {"amount": "-1"},
        {"amount": "1e3"},
        {"amount": "0x10"},
        {"amount": "0"},
        {"amount": "\u0661"},  # a digit, in Arabic
        {"amount": "9" * 5_000},
        {"max_timeout_seconds": 86_400},
        {"max_timeout_seconds": 0},
        {"pay_to": "0x00"},
        {"extra": {"name": "Another Coin", "version": "2"}},
        {"extra": {"name": {}, "version": []}},
        {"extra": {"paymentFlow": "escrow"}},
        {"extra": {"assetTransferMethod": "permit2"}},
    ],
)
async def test_terms_that_are_not_allowed_are_not_signed(
    open_agent, bought, proxy, quoted, changes
):
    proxy.challenge = quoted(**changes)
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(UpstreamError):
            await ask(agent)
    assert (await bought(), proxy.signatures) == ([], [])


@pytest.mark.parametrize(
    "header", ["", "garbage", "e30=", "W10=", "bnVsbA==", "A" * 60_000, NESTED]
)
async def test_a_quote_that_cannot_be_read_is_not_signed(open_agent, bought, proxy, header):
    proxy.challenge = header
    async with open_agent(upstream_url=proxy.url) as agent:
        with pytest.raises(UpstreamError, match="PAYMENT-REQUIRED"):
            await ask(agent)
    assert (await bought(), proxy.signatures) == ([], [])


async def test_the_cheapest_of_many_allowed_offers_is_taken(open_agent, bought, proxy, quoted):
    offers = [{"amount": str(amount)} for amount in (4_000, 3_000, 3_500)] * 20
    proxy.challenge = quoted(*offers, {"amount": "1", "pay_to": STRANGER})
    async with open_agent(upstream_url=proxy.url) as agent:
        await ask(agent)
    assert [purchase.amount for purchase in await bought()] == [3_000]


async def test_without_a_setting_the_host_is_paid_at_its_first_address_only(
    open_agent, bought, proxy, quoted
):
    async with open_agent(upstream_url=proxy.url, upstream_pay_to=None) as agent:
        assert (await ask(agent)).status_code == 200
        proxy.challenge = quoted({"pay_to": STRANGER})
        with pytest.raises(UpstreamError, match="so far it was paid at"):
            await ask(agent)
    assert [purchase.state for purchase in await bought()] == ["paid"]
    assert len(proxy.signatures) == 1


async def test_no_other_host_is_paid_even_after_a_redirect(open_agent, bought, open_proxy, quoted):
    first, other = open_proxy(), open_proxy()
    other.challenge = quoted()
    first.unpaid = lambda handler, _: handler._answer(
        307, {"Location": f"{other.url}/chat/completions"}, b""
    )
    async with open_agent(upstream_url=first.url, follow_redirects=True) as agent:
        with pytest.raises(UpstreamError, match="another host"):
            await ask(agent)
    assert (await bought(), other.signatures) == ([], [])


async def test_a_402_that_drips_is_given_up(open_agent, bought, proxy):
    def drip(handler, _):
        handler.wfile.write(b"HTTP/1.1 402 Payment Required\r\nX-Slow: ")
        while True:
            handler.wfile.write(b"a")
            time.sleep(0.02)

    proxy.unpaid = drip
    async with open_agent(upstream_url=proxy.url, quote_timeout_s=0.3) as agent:
        with pytest.raises(UpstreamError, match="did not say within"):
            await ask(agent)
    assert await bought() == []


async def test_a_402_with_an_endless_body_is_paid_without_reading_it(open_agent, bought, proxy):
    def endless(handler, body):
        handler.send_response(402)
        for name, value in payment_headers(handler.forward(body)).items():
            handler.send_header(name, value)
        handler.end_headers()
        while True:
            handler.wfile.write(b"a" * 4_096)

    proxy.unpaid = endless
    async with open_agent(upstream_url=proxy.url) as agent:
        assert (await ask(agent)).status_code == 200
    assert [purchase.state for purchase in await bought()] == ["paid"]
