"""How payments are read, and what a 402 and a receipt look like to each kind of client."""

import base64
import json
import re

import httpx2
import openai
import pytest
from eth_account import Account
from x402 import x402ClientSync
from x402.http.utils import decode_payment_response_header
from x402.http.x402_http_client import x402HTTPClientSync
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import PaymentRequired as Challenge
from x402.schemas import PaymentRequiredV1, PaymentRequirements, ResourceInfo

from tinybrain.errors import InvalidRequest, PaymentRequired, RequestTooLarge
from tinybrain.payments.wire import (
    challenge_body,
    challenge_header,
    read_payment,
    settlement_headers,
)

UNPAID = PaymentRequired("This costs $0.01.")
REFUSED = PaymentRequired("The payer holds too little.", code="insufficient_funds")


def challenge(network="eip155:84532"):
    return Challenge(
        error="payment_required",
        resource=ResourceInfo(
            url="https://tinybrain.example/v1/chat/completions",
            description="One chat answer",
            mime_type="application/json",
        ),
        accepts=[
            PaymentRequirements(
                scheme="exact",
                network=network,
                asset="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
                amount="10000",
                pay_to="0x" + "c" * 40,
                max_timeout_seconds=300,
                extra={"name": "USDC", "version": "2"},
            )
        ],
    )


@pytest.fixture(scope="module")
def client():
    client = x402ClientSync()
    register_exact_evm_client(client, EthAccountSigner(Account.create()))
    return client


@pytest.fixture(scope="module")
def payment_v2(client):
    return client.create_payment_payload(challenge()).model_dump(by_alias=True, exclude_none=True)


@pytest.fixture(scope="module")
def payment_v1(client):
    body = challenge_body(challenge(), UNPAID, openai_client=False)
    payload = client.create_payment_payload(PaymentRequiredV1.model_validate(body))
    return payload.model_dump(by_alias=True, exclude_none=True)


def encoded(payload):
    return base64.b64encode(json.dumps(payload).encode()).decode()


def read(**values):
    """Header names with `_` for `-`."""
    headers = {name.replace("_", "-"): [value] for name, value in values.items()}
    return read_payment(lambda name: headers.get(name, []))


def changed(payload, path, value):
    """A copy with one field replaced, or dropped if the value is `...`."""
    copy = json.loads(json.dumps(payload))
    *parents, last = path.split(".")
    inner = copy
    for parent in parents:
        inner = inner.setdefault(parent, {})
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


def malformed(match=None, **values):
    with pytest.raises(InvalidRequest, match=match) as caught:
        read(**values)
    assert caught.value.code == "payment_malformed"


def test_a_request_without_a_payment_carries_none():
    assert read() is None


def test_both_versions_of_a_payment_are_read_into_the_same_words(payment_v1, payment_v2):
    first, second = read(X_PAYMENT=encoded(payment_v1)), read(PAYMENT_SIGNATURE=encoded(payment_v2))
    assert (first.version, second.version) == (1, 2)
    assert first.terms.network == second.terms.network == "eip155:84532"
    assert first.authorization.payer == second.authorization.payer
    assert second.authorization.to_wire() == payment_v2["payload"]["authorization"]


def test_a_signature_is_not_shown_where_a_payment_is_printed(payment_v2):
    assert payment_v2["payload"]["signature"] not in repr(
        read(PAYMENT_SIGNATURE=encoded(payment_v2))
    )


def test_base64_may_be_url_safe_and_may_lack_its_padding(payment_v2):
    padded = json.dumps(payment_v2 | {"note": "???>>>"}).encode()
    for data in (padded, padded + b" ", padded + b"  "):
        told = base64.urlsafe_b64encode(data).decode()
        assert read(PAYMENT_SIGNATURE=told) == read(PAYMENT_SIGNATURE=told.rstrip("="))


def test_numbers_may_be_numbers_or_text(payment_v2):
    as_int = changed(payment_v2, "payload.authorization.value", 10_000)
    assert read(PAYMENT_SIGNATURE=encoded(as_int)).authorization.value == 10_000


def test_unknown_fields_are_ignored(payment_v2):
    assert read(PAYMENT_SIGNATURE=encoded(changed(payment_v2, "payload.more", [1]))) == read(
        PAYMENT_SIGNATURE=encoded(payment_v2)
    )


@pytest.mark.parametrize("number", [True, 1.0, 1e30, -1, "-1", "1.0", " 1", "1_0", "0x1", "٣", ""])
def test_amounts_and_times_are_whole_numbers(payment_v2, number):
    for path in ("payload.authorization.value", "payload.authorization.validBefore"):
        malformed(path, PAYMENT_SIGNATURE=encoded(changed(payment_v2, path, number)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("accepted", ...),
        ("accepted.amount", ...),
        ("accepted.amount", 1.5),
        ("accepted.payTo", None),
        ("payload.signature", ...),
        ("payload.signature", "0x"),
        ("payload.signature", "0x" + "f" * 128),
        ("payload.signature", "0x" + "f" * 5000),
        ("payload.signature", "0x" + "f" * 130 + "\n"),
        ("payload.authorization.nonce", ...),
        ("payload.authorization.nonce", "0x12"),
        ("payload.authorization.value", str(2**256)),
        ("payload.authorization.validAfter", str(2**63)),
        ("payload.authorization.from", "0x1"),
        ("payload.authorization", []),
    ],
)
def test_what_is_missing_or_wrong_is_named(payment_v2, path, value):
    named = path.removesuffix(".payTo")
    malformed(named, PAYMENT_SIGNATURE=encoded(changed(payment_v2, path, value)))


@pytest.mark.parametrize("version", ["2", 2.0, True, None, 3, ...])
def test_only_the_headers_own_version_is_read(payment_v2, version):
    payment = changed(payment_v2, "x402Version", version)
    malformed("x402Version is not 2", PAYMENT_SIGNATURE=encoded(payment))


def test_a_payment_in_the_other_versions_header_is_told_where_it_belongs(payment_v1, payment_v2):
    malformed("version 1 belongs in X-PAYMENT", PAYMENT_SIGNATURE=encoded(payment_v1))
    malformed("version 2 belongs in PAYMENT-SIGNATURE", X_PAYMENT=encoded(payment_v2))


def test_true_is_not_version_1(payment_v1):
    malformed("not 1", X_PAYMENT=encoded(payment_v1 | {"x402Version": True}))


def test_a_request_may_carry_one_payment_only(payment_v1, payment_v2):
    malformed("2 payments", X_PAYMENT=encoded(payment_v1), PAYMENT_SIGNATURE=encoded(payment_v2))
    twice = [encoded(payment_v2)] * 2
    with pytest.raises(InvalidRequest, match="2 payments"):
        read_payment(lambda name: twice if name == "PAYMENT-SIGNATURE" else [])
    malformed(PAYMENT_SIGNATURE=", ".join(twice))  # as a proxy joins them


@pytest.mark.parametrize("network", ["eip155:84532", "Base", "dogecoin", 84532, ["base"]])
def test_version_1_names_its_networks(payment_v1, network):
    malformed("network", X_PAYMENT=encoded(payment_v1 | {"network": network}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"[1,2]",
        b"null",
        b"\xff\xfe",
        b'{"x402Version": 2',
        b"[" * 12_000,
        b'{"a":' * 2_400,
        b'{"x402Version": 2, "accepted": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"x402Version": NaN}',
    ],
)
def test_what_is_no_payload_is_refused(data):
    malformed(PAYMENT_SIGNATURE=base64.b64encode(data).decode())


@pytest.mark.parametrize("value", ["", "%%%", "=", "A", "====", "é", "e30=e30=", "e30 "])
def test_what_is_no_base64_is_refused(value):
    malformed(PAYMENT_SIGNATURE=value)


def test_every_truncation_of_a_payment_is_refused(payment_v2):
    whole = encoded(payment_v2)
    for length in range(0, len(whole) - 4, 7):
        malformed(PAYMENT_SIGNATURE=whole[:length])


def test_an_oversized_header_is_not_even_decoded():
    with pytest.raises(RequestTooLarge) as caught:
        read(X_PAYMENT="A" * 16_385)
    assert caught.value.code == "payment_header_too_large"


IDENTIFIER = "extensions.payment-identifier.info"


@pytest.mark.parametrize("identifier", ["a" * 16, "Z" * 128, "pay_0-9_abcdefghi"])
def test_a_payment_may_have_an_identifier(payment_v2, identifier):
    payment = changed(payment_v2, IDENTIFIER, {"required": False, "id": identifier})
    assert read(PAYMENT_SIGNATURE=encoded(payment)).identifier == identifier


def test_a_client_that_echoes_the_extension_without_an_identifier_has_none(payment_v2):
    payment = changed(payment_v2, IDENTIFIER, {"required": False})
    assert read(PAYMENT_SIGNATURE=encoded(payment)).identifier is None


@pytest.mark.parametrize(
    "identifier", ["a" * 15, "a" * 129, "a" * 15 + "!", "a" * 16 + "\n", 7, []]
)
def test_a_malformed_identifier_is_refused(payment_v2, identifier):
    payment = changed(payment_v2, IDENTIFIER, {"required": False, "id": identifier})
    malformed("payment-identifier", PAYMENT_SIGNATURE=encoded(payment))


def test_a_schema_that_comes_with_a_payment_is_not_run(payment_v2):
    payment = changed(payment_v2, IDENTIFIER, {"required": False, "id": "a" * 16})
    payment["extensions"]["payment-identifier"]["schema"] = {"$ref": "http://127.0.0.1:9/evil"}
    assert read(PAYMENT_SIGNATURE=encoded(payment)).identifier == "a" * 16


def test_a_client_of_version_1_pays_by_the_body(client):
    body = challenge_body(challenge(), UNPAID, openai_client=False)
    asked = x402HTTPClientSync(client).get_payment_required_response(lambda _: None, body)
    (offer,) = asked.accepts
    assert (asked.x402_version, asked.error) == (1, "This costs $0.01.")
    assert offer.model_dump(by_alias=True, exclude_none=True) == {
        "scheme": "exact",
        "network": "base-sepolia",
        "maxAmountRequired": "10000",
        "resource": "https://tinybrain.example/v1/chat/completions",
        "description": "One chat answer",
        "mimeType": "application/json",
        "payTo": "0x" + "c" * 40,
        "maxTimeoutSeconds": 300,
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "extra": {"name": "USDC", "version": "2"},
    }


def test_a_client_of_version_2_pays_by_the_header(client):
    headers = {"PAYMENT-REQUIRED": challenge_header(challenge())}
    body = challenge_body(challenge(), UNPAID, openai_client=False)
    asked = x402HTTPClientSync(client).get_payment_required_response(headers.get, body)
    assert asked == challenge()


@pytest.mark.parametrize(
    ("error", "openai_client"), [(UNPAID, True), (REFUSED, True), (REFUSED, False)]
)
def test_openais_sdk_shows_why(error, openai_client):
    body = challenge_body(challenge(), error, openai_client=openai_client)

    def answer(request):
        assert "x-stainless-lang" in request.headers  # how it is known
        return httpx2.Response(402, json=body)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    sdk = openai.OpenAI(base_url="http://127.0.0.1:9", api_key="none", http_client=transport)
    with pytest.raises(openai.APIStatusError, match=re.escape(error.message)) as caught:
        sdk.models.list()
    assert caught.value.code == error.code


def test_a_network_without_a_name_in_version_1_is_sold_in_version_2_only():
    body = challenge_body(challenge("eip155:31337"), UNPAID, openai_client=False)
    assert body == {"error": "This costs $0.01.", "code": "payment_required"}


def test_each_version_gets_its_receipt(new_payment):
    payment = new_payment()
    transaction = "0x" + "1" * 64
    headers = settlement_headers(1, payment, transaction)
    told = {name: decode_payment_response_header(value) for name, value in headers.items()}
    assert told["PAYMENT-RESPONSE"].network == "eip155:84532"
    assert told["X-PAYMENT-RESPONSE"].network == "base-sepolia"
    assert told["X-PAYMENT-RESPONSE"].transaction == transaction
    assert settlement_headers(2, payment, transaction).keys() == {"PAYMENT-RESPONSE"}
