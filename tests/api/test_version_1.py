"""Clients of x402 version 1: the terms from the body, the payment in X-PAYMENT."""

import httpx
import pytest
from x402 import x402Client
from x402.http import x402HTTPClient
from x402.http.clients.httpx import x402AsyncTransport
from x402.http.utils import decode_payment_response_header
from x402.mechanisms.evm.exact import register_exact_evm_client

from tests.api.callers import CHAT, HELLO

pytestmark = pytest.mark.chain
LOCAL = HELLO | {"model": "tinychat", "max_tokens": 8}


class Version1(x402HTTPClient):
    """The stock client as it is where a server speaks version 1: no header tells the terms."""

    def get_payment_required_response(self, get_header, body=None):
        return super().get_payment_required_response(lambda _: None, body)

    def encode_payment_signature_header(self, payload):
        self.sent = super().encode_payment_signature_header(payload)
        return self.sent


@pytest.fixture
def client(caller):
    client = x402Client()
    register_exact_evm_client(client, caller.wallet)
    return Version1(client)


@pytest.fixture
async def http(client):
    async with httpx.AsyncClient(transport=x402AsyncTransport(client), timeout=60) as http:
        yield http


def paid(answer, name):
    return decode_payment_response_header(answer.headers[name])


async def test_it_buys_an_answer_and_is_told_the_settlement_in_both_headers(
    service, caller, client, http
):
    answer = await http.post(service.url + CHAT, json=LOCAL)
    assert answer.status_code == 200
    assert client.sent.keys() == {"X-PAYMENT"}
    old, new = paid(answer, "x-payment-response"), paid(answer, "payment-response")
    assert (old.success, old.network, new.network) == (True, "base-sepolia", "eip155:84532")
    assert old.transaction == new.transaction
    assert answer.json()["x_tinybrain"]["payment"]["transaction"] == old.transaction
    assert caller.balance() == 990_000


async def test_a_repeat_gets_the_same_answer_and_the_same_settlement(service, caller, client, http):
    first = await http.post(service.url + CHAT, json=LOCAL)
    again = await http.post(service.url + CHAT, json=LOCAL, headers=client.sent)
    assert again.status_code == 200
    assert again.json()["choices"] == first.json()["choices"]
    for name in ("x-payment-response", "payment-response", "x-tinybrain-receipt"):
        assert again.headers[name] == first.headers[name]
    assert caller.balance() == 990_000


async def test_a_stream_paid_by_it_is_settled_after_its_end(service, caller, http):
    answer = await http.post(service.url + CHAT, json=LOCAL | {"stream": True})
    assert answer.text.rstrip().endswith("data: [DONE]")
    service.settled(answer.headers["x-tinybrain-receipt"])
    assert caller.balance() == 990_000
