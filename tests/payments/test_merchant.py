"""What is asked for, and which payments are taken."""

import base64
import json
import secrets
import time
from dataclasses import replace

import pytest
from eth_account import Account
from web3 import Web3
from x402 import x402ClientSync
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import PaymentRequiredV1, VerifyResponse

from tinybrain.config import load_settings
from tinybrain.devnet.token import mint
from tinybrain.errors import PaymentRequired
from tinybrain.payments.merchant import Merchant, payload_of
from tinybrain.payments.pricing import Product
from tinybrain.payments.records import Purpose
from tinybrain.payments.wire import challenge_body, challenge_header, read_payment

PAY_TO = "0x" + "c" * 40
OTHER = "0x" + "d" * 40
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
ANSWER = Product("/v1/chat/completions", "One chat answer", 10_000, "authorization")
UPFRONT = replace(ANSWER, flow="upfront")


class Verdict:
    """A facilitator that says what it is told to, and counts how often it is asked."""

    def __init__(self, reason=None):
        self.reason = reason
        self.asked = 0

    async def verify(self, payload, requirements):
        self.asked += 1
        return VerifyResponse(is_valid=self.reason is None, invalid_reason=self.reason)


@pytest.fixture
def settings():
    return load_settings(network="eip155:84532", pay_to=PAY_TO)


@pytest.fixture
def facilitator():
    return Verdict()


@pytest.fixture
def merchant(settings, facilitator):
    return Merchant(settings, facilitator)


@pytest.fixture
def wallet():
    return Account.create()


@pytest.fixture
def sign(merchant, wallet):
    """Signs like a stock client, then lets the test spoil the payload."""
    client = x402ClientSync()
    register_exact_evm_client(client, EthAccountSigner(wallet))

    def build(spoil=None, product=ANSWER, version=2):
        challenge = merchant.challenge(product, "payment_required")
        if version == 1:
            body = challenge_body(challenge, merchant.required(product), openai_client=False)
            challenge = PaymentRequiredV1.model_validate(body)
        payload = client.create_payment_payload(challenge).model_dump(
            by_alias=True, exclude_none=True
        )
        if spoil:
            spoil(payload)
        return parsed(payload)

    return build


def parsed(payload):
    name = "X-PAYMENT" if payload["x402Version"] == 1 else "PAYMENT-SIGNATURE"
    headers = {name: [base64.b64encode(json.dumps(payload).encode()).decode()]}
    return read_payment(lambda name: headers.get(name, []))


async def admit(merchant, header, product=ANSWER):
    payment = merchant.identify(header, product, request_hash="h")
    await merchant.verify(payment)
    return payment


async def refused(merchant, header, code, product=ANSWER):
    with pytest.raises(PaymentRequired) as caught:
        await admit(merchant, header, product)
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("product", [ANSWER, UPFRONT])
async def test_a_stock_clients_payment_is_admitted(
    merchant, facilitator, wallet, sign, version, product
):
    payment = await admit(merchant, sign(product=product, version=version), product)
    assert facilitator.asked == 1
    assert (payment.amount, payment.pay_to, payment.request_hash) == (10_000, PAY_TO, "h")
    assert payment.payer == wallet.address.lower()
    assert (payment.flow, payment.purpose) == (product.flow, Purpose.ANSWER)


@pytest.mark.chain
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_kept_is_version_2_whatever_came_and_the_token_takes_it(
    chain, merchant, wallet, sign, version
):
    mint(chain.web3, chain.token, wallet.address, 10_000)
    payment = merchant.identify(sign(version=version), ANSWER, request_hash="h")
    kept = payload_of(payment.payload)
    assert (kept.x402_version, kept.accepted) == (2, merchant.requirements(ANSWER))
    authorization = kept.payload["authorization"]
    transfer = chain.token.get_function_by_signature(
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"
    )
    transfer(
        authorization["from"],
        Web3.to_checksum_address(authorization["to"]),
        *(int(authorization[name]) for name in ("value", "validAfter", "validBefore")),
        authorization["nonce"],
        kept.payload["signature"],
    ).call()  # the real USDC reverts on anything it would not execute


def test_the_challenge_can_be_read_by_the_sdk(merchant):
    challenge = decode_payment_required_header(
        challenge_header(merchant.challenge(ANSWER, "payment_required"))
    )
    (offer,) = challenge.accepts
    assert (offer.scheme, offer.amount, offer.pay_to) == ("exact", "10000", PAY_TO)
    assert challenge.resource.url == "http://127.0.0.1:8000/v1/chat/completions"


def test_the_challenge_says_the_products_price_flow_and_that_identifiers_are_honoured(merchant):
    dear = replace(UPFRONT, price=2_500_000)
    challenge = merchant.challenge(dear, "payment_required")
    (offer,) = challenge.accepts
    assert (offer.amount, offer.extra["paymentFlow"]) == ("2500000", "upfront")
    assert challenge.extensions["payment-identifier"]["info"] == {"required": False}
    assert "$2.50" in merchant.required(dear).message


def test_clients_older_than_the_flows_are_not_shown_the_default_one(merchant):
    assert "paymentFlow" not in merchant.requirements(ANSWER).extra


def accepted(**changes):
    return lambda payload: payload["accepted"].update(changes)


def signed(**changes):
    return lambda payload: payload["payload"]["authorization"].update(changes)


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


async def test_a_version_1_payment_on_another_network_is_refused(merchant, sign):
    header = sign(lambda payload: payload.update(network="base"), version=1)
    assert "network" in (await refused(merchant, header, "payment_invalid")).message


async def test_a_payment_for_a_cheaper_product_does_not_buy_a_dearer_one(merchant, sign):
    dear = replace(ANSWER, price=20_000)
    await refused(merchant, sign(), "payment_invalid", dear)


def forge(payload):
    payload["payload"]["signature"] = "0x" + "1" * 128 + "1b"


def twin(payload):
    """The other signature of the same key and message, which anyone can compute."""
    signature = payload["payload"]["signature"]
    r, s, v = signature[2:66], int(signature[66:130], 16), signature[130:]
    payload["payload"]["signature"] = f"0x{r}{ORDER - s:064x}" + {"1b": "1c", "1c": "1b"}[v]


@pytest.mark.parametrize(
    "spoil",
    [
        forge,
        twin,
        signed(**{"from": OTHER}),
        signed(nonce="0x" + "9" * 64),
        signed(validBefore=2**40),
        lambda payload: payload["payload"].update(signature="0x" + "0" * 130),
    ],
)
def test_only_the_payers_own_signature_of_these_very_terms_counts(merchant, sign, spoil):
    with pytest.raises(PaymentRequired) as caught:
        merchant.identify(sign(spoil), ANSWER, request_hash="h")
    assert caught.value.code == "payment_invalid_signature"


def test_a_signature_whose_v_counts_from_zero_is_kept_as_the_token_wants_it(merchant, sign):
    def recount(payload):
        signature = payload["payload"]["signature"]
        payload["payload"]["signature"] = signature[:-2] + {"1b": "00", "1c": "01"}[signature[-2:]]

    payment = merchant.identify(sign(recount), ANSWER, request_hash="h")
    assert payment.payload["payload"]["signature"][-2:] in ("1b", "1c")


class Clock:
    """Real time, which tests move."""

    ahead = 0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("ahead", "product", "code"),
    [
        (+155, ANSWER, "payment_expired"),  # 145 seconds left, an answer may take 120
        (+275, UPFRONT, "payment_expired"),
        (+301, UPFRONT, "payment_expired"),
    ],
)
async def test_the_window_must_fit_the_product(
    settings, facilitator, clock, sign, ahead, product, code
):
    merchant = Merchant(settings, facilitator, clock=clock)
    header = sign(product=product)
    clock.ahead = ahead
    await refused(merchant, header, code, product)
    assert facilitator.asked == 0


async def test_a_payment_that_is_not_valid_yet_is_refused(merchant, facilitator, sign):
    payment = merchant.identify(sign(), ANSWER, request_hash="h")
    payment.payload["payload"]["authorization"]["validAfter"] = str(int(time.time()) + 100)
    with pytest.raises(PaymentRequired) as caught:
        await merchant.verify(payment)
    assert (caught.value.code, facilitator.asked) == ("payment_not_yet_valid", 0)


async def test_a_payment_that_settles_first_may_expire_sooner(settings, facilitator, clock, sign):
    merchant = Merchant(settings, facilitator, clock=clock)
    header = sign(product=UPFRONT)
    clock.ahead = 200
    await admit(merchant, header, UPFRONT)


async def test_a_far_window_is_refused(facilitator, sign):
    patient = Merchant(
        load_settings(network="eip155:84532", pay_to=PAY_TO, payment_timeout_s=3600), facilitator
    )
    client = x402ClientSync()
    register_exact_evm_client(client, EthAccountSigner(Account.create()))
    payload = client.create_payment_payload(patient.challenge(ANSWER, "payment_required"))
    header = parsed(payload.model_dump(by_alias=True, exclude_none=True))
    strict = Merchant(load_settings(network="eip155:84532", pay_to=PAY_TO), facilitator)
    await refused(strict, header, "payment_window_too_long")


def test_a_retry_after_its_window_has_closed_is_still_identified(
    settings, facilitator, clock, sign
):
    header = sign()
    clock.ahead = 3000
    late = Merchant(settings, facilitator, clock=clock)
    assert late.identify(header, ANSWER, request_hash="h").amount == 10_000


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
    merchant = Merchant(settings, Verdict("invalid literal for int() with base 10: 'abc'"))
    assert "literal" not in (await refused(merchant, sign(), "payment_invalid")).message


def test_capital_letters_do_not_make_another_key(merchant, sign):
    def shout(payload):
        authorization = payload["payload"]["authorization"]
        authorization["nonce"] = "0x" + authorization["nonce"][2:].upper()

    payment = merchant.identify(sign(shout), ANSWER, request_hash="h")
    assert payment.nonce == payment.nonce.lower()


def test_the_payments_identifier_and_purpose_are_kept(merchant, sign):
    identifier = f"pay_{secrets.token_hex(16)}"

    def name(payload):
        payload["extensions"]["payment-identifier"]["info"]["id"] = identifier

    payment = merchant.identify(sign(name), ANSWER, request_hash="h", purpose=Purpose.TAB)
    assert (payment.identifier, payment.purpose) == (identifier, Purpose.TAB)


def test_nothing_that_was_not_checked_is_kept(merchant, sign):
    def smuggle(payload):
        payload["extensions"]["surprise"] = {"info": "surprise"}
        payload["payload"]["surprise"] = payload["accepted"]["extra"]["surprise"] = "surprise"

    payment = merchant.identify(sign(smuggle), ANSWER, request_hash="h")
    assert "surprise" not in json.dumps([payment.payload, payment.requirements])


def test_the_header_a_client_makes_is_within_bounds(merchant):
    client = x402ClientSync()
    register_exact_evm_client(client, EthAccountSigner(Account.create()))
    payload = client.create_payment_payload(merchant.challenge(ANSWER, "payment_required"))
    assert len(encode_payment_signature_header(payload)) < 2000
