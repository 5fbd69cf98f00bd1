"""What is refused: each with its own status and code, an OpenAI error object, and no charge."""

import base64
import time

import httpx
import pytest
from eth_account import Account
from x402.http.utils import decode_payment_required_header

pytestmark = pytest.mark.chain
HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}]}
STRANGER = "0x" + "d" * 40
PATH = "/v1/chat/completions"


@pytest.fixture
def refused(service, caller):
    """Sends a request that is to be refused: nothing is recorded and nothing is paid."""

    def send(method="POST", path=PATH, **request):
        before = [len(service.rows(table)) for table in ("answers", "payments")]
        answer = httpx.request(method, service.url + path, timeout=30, **request)
        assert [len(service.rows(table)) for table in ("answers", "payments")] == before
        assert caller.balance() == 1_000_000
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert len(error["message"]) > 10
        return answer.status_code, error["code"]

    return send


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize("path", [PATH, "/chat/completions"])
def test_without_a_payment_the_price_is_told_to_clients_of_both_versions(service, path):
    answer = httpx.post(service.url + path, json=HELLO)
    (offer,) = decode_payment_required_header(answer.headers["payment-required"]).accepts
    assert (offer.amount, offer.pay_to) == ("10000", service.settings.pay_to)
    told = answer.json()
    assert (answer.status_code, told["code"]) == (402, "payment_required")
    assert told["accepts"][0]["maxAmountRequired"] == "10000"
    assert "costs $0.01" in told["error"]
    assert answer.headers["cache-control"] == "no-store"


def test_an_openai_client_is_told_the_price_in_an_error_of_its_own(refused):
    openai_client = {"X-Stainless-Lang": "python"}
    assert refused(json=HELLO, headers=openai_client) == (402, "payment_required")


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"amount": "9999"}, "payment_invalid"),
        ({"amount": "0"}, "payment_invalid"),
        ({"payTo": STRANGER}, "payment_invalid"),
        ({"network": "eip155:8453"}, "payment_invalid"),
        ({"asset": STRANGER}, "payment_invalid"),
        ({"scheme": "upto"}, "payment_invalid"),
        ({"validBefore": int(time.time()) - 1}, "payment_expired"),
        ({"validBefore": int(time.time()) + 60}, "payment_expired"),
        ({"validAfter": int(time.time()) + 3600}, "payment_not_yet_valid"),
        ({"validBefore": int(time.time()) + 10**7}, "payment_window_too_long"),
        ({"signer": Account.create()}, "payment_invalid_signature"),
    ],
)
def test_a_payment_signed_for_other_terms_is_refused(service, caller, refused, terms, code):
    assert refused(json=HELLO, headers=caller.headers(service, **terms)) == (402, code)


def test_a_payer_without_money_is_told_so(service, pauper, refused):
    headers = pauper.headers(service)
    assert refused(json=HELLO, headers=headers) == (402, "insufficient_funds")


def test_a_payment_cannot_be_cut_short(service, caller, refused):
    header = caller.headers(service)["PAYMENT-SIGNATURE"][:-20]
    found = refused(json=HELLO, headers={"PAYMENT-SIGNATURE": header})
    assert found == (400, "payment_malformed")


@pytest.mark.parametrize("header", ["", "garbage", "e30=", "bnVsbA==", "ÿ".encode("latin-1")])
def test_a_header_that_is_no_payment_is_malformed(refused, header):
    found = refused(json=HELLO, headers={"PAYMENT-SIGNATURE": header})
    assert found == (400, "payment_malformed")


def test_an_oversized_payment_header_is_refused(refused):
    found = refused(json=HELLO, headers={"PAYMENT-SIGNATURE": "A" * 60_000})
    assert found == (413, "payment_header_too_large")


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        (b"[" * 30_000, 413, "payment_header_too_large"),
        (b"[" * 12_000, 400, "payment_malformed"),  # as much as a header may hold
        (b"[" * 6_000 + b"]" * 6_000, 400, "payment_malformed"),
        (
            b'{"x402Version":2,"payload":' + b"[" * 1_200 + b"]" * 1_200 + b"}",
            400,
            "payment_malformed",
        ),
    ],
)
def test_deeply_nested_json_in_a_payment_header_is_refused(refused, document, status, code):
    header = base64.b64encode(document).decode()
    assert refused(json=HELLO, headers={"PAYMENT-SIGNATURE": header}) == (status, code)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 30_000, "invalid_json"),
        (b"[" * 30_000 + b"]" * 30_000, "invalid_json"),
        (b'{"messages":' * 15_000 + b"0" + b"}" * 15_000, "invalid_json"),
        (b'{"messages": NaN}', "invalid_json"),
        (b"{}", "invalid_request"),
    ],
)
def test_a_body_that_is_no_request_is_refused_before_the_payment_is_looked_at(
    service, caller, refused, content, code
):
    assert refused(content=content, headers=caller.headers(service)) == (400, code)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "gpt-6"}, 404, "model_not_found"),
        ({"messages": []}, 400, "invalid_request"),
        ({"messages": [user("hi")] * 501}, 400, "too_many_messages"),
        ({"messages": [user("x" * 8_001)]}, 400, "message_too_long"),
        ({"messages": [user("x" * 7_000)] * 5}, 400, "context_length_exceeded"),
        ({"messages": [user(" \n")]}, 400, "invalid_request"),
        ({"messages": [user("hi"), {"role": "assistant", "content": "a"}]}, 400, "invalid_request"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "invalid_request"),
        ({"messages": [user(None)]}, 400, "invalid_request"),
        ({"max_tokens": -1}, 400, "invalid_request"),
        ({"max_tokens": 0}, 400, "invalid_request"),
        ({"temperature": 2.1}, 400, "invalid_request"),
        ({"top_p": 0}, 400, "invalid_request"),
        ({"top_p": 1e-46}, 400, "invalid_request"),
        ({"top_p": 1.1}, 400, "invalid_request"),
        ({"min_p": -0.1}, 400, "invalid_request"),
        ({"repetition_penalty": 0}, 400, "invalid_request"),
        ({"repetition_penalty": 1e-39}, 400, "invalid_request"),
        ({"n": 0}, 400, "invalid_request"),
        ({"n": 9}, 400, "invalid_request"),
        ({"logit_bias": {"5": 101}}, 400, "invalid_request"),
        ({"stop": ["a"] * 5}, 400, "invalid_request"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "invalid_request"),
        ({"top_logprobs": 2}, 400, "invalid_request"),
        ({"response_format": {"type": "json_object"}}, 400, "invalid_request"),
        ({"tools": [{"type": "function"}]}, 400, "invalid_request"),
        ({"seed": 2**63}, 400, "invalid_request"),
    ],
)
def test_a_request_out_of_bounds_is_refused_though_it_is_paid(
    service, caller, refused, changes, status, code
):
    assert refused(json=HELLO | changes, headers=caller.headers(service)) == (status, code)


@pytest.mark.parametrize(
    "changes",
    [{"messages": []}, {"max_tokens": -1}, {"top_k": 201}, {"messages": [user("x" * 8_001)]}],
)
def test_the_native_format_has_the_same_bounds(service, caller, refused, changes):
    headers = caller.headers(service)
    assert refused(path="/chat/completions", json=HELLO | changes, headers=headers)[0] == 400


def test_a_body_that_is_too_large_is_refused(service, caller, refused):
    content = b" " * 262_145
    assert refused(content=content, headers=caller.headers(service))[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", PATH, 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", 404, "not_found"),
    ],
)
def test_what_does_not_exist_is_said(refused, method, path, status, code):
    assert refused(method, path) == (status, code)


def test_only_a_failure_that_may_pass_is_worth_a_retry(service):
    answer = httpx.post(service.url + PATH, json=HELLO)
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
