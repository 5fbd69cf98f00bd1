"""What a payment header must be; the checks that need no chain."""

import base64
import json
import secrets
import time

import pytest
from eth_account import Account
from x402 import x402ClientSync
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import VerifyResponse

from tinybrain.config import load_settings
from tinybrain.errors import InvalidRequest, PaymentRequired, RequestTooLarge
from tinybrain.payments.merchant import Merchant, challenge_header

PAY_TO = "0x" + "c" * 40
OTHER = "0x" + "d" * 40


class Verdict:
    """A facilitator that says what it is told to, and counts how often it is asked."""

    def __init__(self, reason=None):
        self.reason = reason
        self.asked = 0

    async def verify(self, payload, requirements):
        self.asked += 1
        return VerifyResponse(is_valid=self.reason is None, invalid_reason=self.reason)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_settings(network="eip155:84532", pay_to=PAY_TO)


@pytest.fixture
def facilitator():
    return Verdict()


@pytest.fixture
def merchant(settings, facilitator):
    return Merchant(settings, facilitator)


@pytest.fixture
def sign(merchant):
    """Signs like a stock client, then lets the test spoil the payload."""
    client = x402ClientSync()
    register_exact_evm_client(client, EthAccountSigner(Account.create()))

    def build(spoil=None):
        challenge = merchant.challenge("/v1/chat/completions", "payment_required")
        payload = client.create_payment_payload(challenge).model_dump(
            by_alias=True, exclude_none=True
        )
        if spoil:
            spoil(payload)
        return base64.b64encode(json.dumps(payload).encode()).decode()

    return build


async def refused(merchant, header, code, error=PaymentRequired):
    with pytest.raises(error) as caught:
        await merchant.admit(header, request_hash="h")
    assert caught.value.code == code
    return caught.value


async def test_a_stock_clients_payment_is_admitted(merchant, facilitator, sign):
    payment = await merchant.admit(sign(), request_hash="h")
    assert facilitator.asked == 1
    assert (payment.amount, payment.pay_to, payment.request_hash) == (10_000, PAY_TO, "h")
    assert payment.payer == payment.payer.lower()


def test_the_challenge_can_be_read_by_the_sdk(merchant):
    challenge = decode_payment_required_header(
        challenge_header(merchant.challenge("/v1/chat/completions", "payment_required"))
    )
    (offer,) = challenge.accepts
    assert (offer.scheme, offer.amount, offer.pay_to) == ("exact", "10000", PAY_TO)
    assert challenge.resource.url == "http://127.0.0.1:8000/v1/chat/completions"


def accepted(**changes):
    return lambda payload: payload["accepted"].update(changes)


def signed(**changes):
    return lambda payload: payload["payload"]["authorization"].update(changes)


def signed_in(**seconds):
    """Times so many seconds from when the test runs; it may have been collected long ago."""

    def spoil(payload):
        now = int(time.time())
        changes = {name: str(now + offset) for name, offset in seconds.items()}
        payload["payload"]["authorization"].update(changes)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (accepted(amount="9999"), "amount"),
        (accepted(payTo=OTHER), "payTo"),
        (accepted(network="eip155:8453"), "network"),
        (accepted(asset=OTHER), "asset"),
        (accepted(scheme="upto"), "scheme"),
        (signed(value="9999"), "signed value"),
        (signed(value="10001"), "signed value"),
        (signed(to=OTHER), "signed recipient"),
    ],
)
async def test_other_terms_are_refused_by_name_without_asking_anyone(
    merchant, facilitator, sign, spoil, named
):
    error = await refused(merchant, sign(spoil), "payment_invalid")
    assert named in error.message
    assert facilitator.asked == 0


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (signed_in(validBefore=-1), "payment_expired"),
        (signed_in(validBefore=+100), "payment_expired"),
        (signed_in(validAfter=+1000), "payment_not_yet_valid"),
        (signed_in(validBefore=+(10**7)), "payment_window_too_long"),
    ],
)
async def test_the_window_must_fit_the_answer(merchant, facilitator, sign, spoil, code):
    await refused(merchant, sign(spoil), code)
    assert facilitator.asked == 0


def drop(*path):
    def spoil(payload):
        for key in path[:-1]:
            payload = payload[key]
        del payload[path[-1]]

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        drop("accepted"),
        drop("payload", "signature"),
        drop("payload", "authorization", "nonce"),
        signed(nonce="0x12"),
        signed(value="-1"),
        signed(value="abc"),
        signed(value=str(2**256)),
        signed(**{"from": "0x1"}),
        lambda payload: payload.update(x402Version=1),
        lambda payload: payload.update(x402Version="2"),
        lambda payload: payload["payload"].update(signature="0x"),
        lambda payload: payload["payload"].update(signature="0x" + "f" * 5000),
        lambda payload: payload["payload"].update(signature="0x" + "f" * 128),
    ],
)
async def test_malformed_payloads_are_refused(merchant, facilitator, sign, spoil):
    await refused(merchant, sign(spoil), "payment_malformed", InvalidRequest)
    assert facilitator.asked == 0


@pytest.mark.parametrize(
    "header",
    [
        "",
        "%%%",
        "bm90IGpzb24=",
        base64.b64encode(b"[1,2]").decode(),
        base64.b64encode(b"null").decode(),
        base64.b64encode(b'{"x402Version": 2}').decode(),
        base64.b64encode(b"[" * 5000).decode(),
        base64.b64encode(b"\xff\xfe").decode(),
    ],
)
async def test_headers_that_are_no_payload_are_refused(merchant, header):
    await refused(merchant, header, "payment_malformed", InvalidRequest)


async def test_a_truncated_header_is_refused(merchant, sign):
    await refused(merchant, sign()[:-21], "payment_malformed", InvalidRequest)


async def test_an_oversized_header_is_not_even_decoded(merchant):
    await refused(merchant, "A" * 16_385, "payment_header_too_large", RequestTooLarge)


def forge(payload):
    payload["payload"]["signature"] = "0x" + "1" * 128 + "1b"


@pytest.mark.parametrize(
    "spoil",
    [
        forge,
        signed(**{"from": OTHER}),
        signed(nonce="0x" + "9" * 64),
        signed_in(validBefore=+299),
        lambda payload: payload["payload"].update(signature="0x" + "0" * 130),
    ],
)
async def test_only_the_payers_own_signature_of_these_very_terms_counts(
    merchant, facilitator, sign, spoil
):
    await refused(merchant, sign(spoil), "payment_invalid_signature")
    assert facilitator.asked == 0


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("invalid_exact_evm_insufficient_balance", "insufficient_funds"),
        ("invalid_exact_evm_payload_signature", "payment_invalid_signature"),
        ("invalid_exact_evm_nonce_already_used", "payment_already_used"),
        ("something_new", "payment_invalid"),
    ],
)
async def test_the_facilitators_reason_becomes_a_code(settings, sign, reason, code):
    await refused(Merchant(settings, Verdict(reason)), sign(), code)


async def test_internal_words_of_a_facilitator_are_not_passed_on(settings, sign):
    leak = "invalid literal for int() with base 10: 'abc'"
    with pytest.raises(PaymentRequired) as caught:
        await Merchant(settings, Verdict(leak)).admit(sign(), request_hash="h")
    assert "literal" not in caught.value.message


async def test_a_re_encoded_authorization_is_still_the_same_key(merchant, sign):
    header = sign()
    respaced = json.dumps(json.loads(base64.b64decode(header)), indent=3)
    again = base64.b64encode(respaced.encode()).decode()
    first = merchant.identify(header, request_hash="h")
    second = merchant.identify(again, request_hash="h")
    assert first.nonce == second.nonce
    assert first.payer == second.payer


async def test_capital_letters_do_not_make_another_key(merchant, sign):
    nonce = "0x" + secrets.token_hex(32)

    def shout(payload):
        authorization = payload["payload"]["authorization"]
        authorization["nonce"] = "0x" + nonce[2:].upper()

    assert merchant.identify(sign(shout), request_hash="h").nonce == nonce


def test_the_header_a_client_makes_is_within_bounds(merchant):
    client = x402ClientSync()
    register_exact_evm_client(client, EthAccountSigner(Account.create()))
    challenge = merchant.challenge("/v1/chat/completions", "payment_required")
    assert len(encode_payment_signature_header(client.create_payment_payload(challenge))) < 2000
