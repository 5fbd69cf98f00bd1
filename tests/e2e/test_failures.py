"""What breaks while an answer is under way: the caller, a replica, the settlement."""

import os
import signal

import httpx
import pytest
from x402 import x402ClientSync
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

pytestmark = [pytest.mark.serve, pytest.mark.chain, pytest.mark.timeout(700)]

THINK = "think hard: why is the sky blue?"
RAMBLE = {  # hot sampling keeps the small model talking for seconds
    "model": "tinychat",
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 2,
    "top_k": 200,
    "seed": 3,
    "max_tokens": 400,
    "stream": True,
}


@pytest.fixture
def paid(product):
    """Opens a paid stream; the payment is the devnet caller's."""
    payer = x402ClientSync()
    register_exact_evm_client(payer, EthAccountSigner(product.wallets.caller))
    url = f"{product.url}/v1/chat/completions"

    def open_stream(http, body):
        """Pays once; each call of what it returns sends the same payment."""
        challenge = decode_payment_required_header(
            http.post(url, json=body).headers["PAYMENT-REQUIRED"]
        )
        header = encode_payment_signature_header(payer.create_payment_payload(challenge))
        paid = {"PAYMENT-SIGNATURE": header}
        return lambda: http.stream("POST", url, json=body, headers=paid)

    with httpx.Client(timeout=60) as http:
        yield lambda body: open_stream(http, body)


def first_text(lines):
    for line in lines:
        if '"content":"' in line and '"content":""' not in line:
            return line
    raise AssertionError("the stream ended without text")


def test_a_caller_who_leaves_after_the_first_token_has_bought_the_answer_and_can_fetch_it(
    product, paid
):
    body = {"messages": [{"role": "user", "content": THINK}], "stream": True, "max_tokens": 60}
    again = paid(body)
    with again() as response:
        answer_id = response.headers["X-TinyBrain-Receipt"]
        first_text(response.iter_lines())
    receipt = product.wait_for_receipt(
        answer_id, lambda receipt: (receipt["payment"] or {}).get("state") == "settled"
    )
    assert receipt["outcome"] == "completed"
    with again() as response:
        assert response.headers["X-TinyBrain-Receipt"] == answer_id
        assert "data: [DONE]" in list(response.iter_lines())


def test_tinychat_killed_mid_stream_ends_the_stream_with_an_error_and_no_charge(product, paid):
    product.wait_until_answering()
    before = product.balances()["caller"]
    replicas = product.replicas("TinyChat")
    with paid(RAMBLE)() as response:
        answer_id = response.headers["X-TinyBrain-Receipt"]
        lines = response.iter_lines()
        first_text(lines)
        for pid in replicas:
            os.kill(pid, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert '"error"' in rest[-1]
    assert "local_model_failed" in rest[-1]
    receipt = product.receipt(answer_id)
    assert (receipt["outcome"], receipt["payment"]["state"]) == ("failed", "released")
    product.wait_until_answering()
    assert product.balances()["caller"] == before


def test_the_escalation_killed_mid_stream_ends_the_stream_with_an_error_and_no_charge(
    product, paid
):
    product.ask(THINK, "--max-tokens", "4")  # its replica is up
    body = {"messages": [{"role": "user", "content": THINK}], "stream": True, "max_tokens": 400}
    replicas = product.replicas("Escalation")
    with paid(body)() as response:
        answer_id = response.headers["X-TinyBrain-Receipt"]
        lines = response.iter_lines()
        first_text(lines)
        for pid in replicas:
            os.kill(pid, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert '"error"' in rest[-1]
    receipt = product.receipt(answer_id)
    assert (receipt["outcome"], receipt["payment"]["state"]) == ("failed", "released")


def test_settlement_killed_settles_after_its_restart(product):
    product.wait_until_answering()
    for pid in product.replicas("Settlement"):
        os.kill(pid, signal.SIGKILL)
    answer = product.ask("Hello, who are you?")
    receipt = product.receipt(answer["receipt"]["receipt"])
    assert receipt["payment"]["state"] == "settled"
    assert receipt["payment"]["transaction"].startswith("0x")


def test_the_ingress_killed_leaves_a_record_and_comes_back(product, paid):
    product.wait_until_answering()
    replicas = product.replicas("PaymentIngress")
    with paid(RAMBLE)() as response:
        answer_id = response.headers["X-TinyBrain-Receipt"]
        lines = response.iter_lines()
        first_text(lines)
        for pid in replicas:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            list(lines)
    receipt = product.wait_for_receipt(answer_id, lambda _: True, despite=httpx.HTTPError)
    # Read at once: its payment is released when the answer's time is over, see test_settlement.
    assert (receipt["outcome"], receipt["payment"]["state"]) == ("running", "claimed")
    product.wait_until_answering()
