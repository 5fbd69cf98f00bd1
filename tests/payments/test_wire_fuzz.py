"""Whatever a payment header holds, it is read or refused: nothing else happens, and soon."""

import base64
import json
from datetime import timedelta

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tinybrain.errors import InvalidRequest
from tinybrain.payments.wire import PaymentHeader, read_payment

AUTHORIZATION = {
    "from": "0x" + "b" * 40,
    "to": "0x" + "c" * 40,
    "value": "10000",
    "validAfter": 0,
    "validBefore": "1800000000",
    "nonce": "0x" + "a" * 64,
}
EXACT = {"authorization": AUTHORIZATION, "signature": "0x" + "1" * 130}
V2 = {
    "x402Version": 2,
    "accepted": {
        "scheme": "exact",
        "network": "eip155:84532",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "amount": "10000",
        "payTo": "0x" + "c" * 40,
    },
    "payload": EXACT,
    "extensions": {"payment-identifier": {"info": {"required": False, "id": "a" * 16}}},
}
V1 = {"x402Version": 1, "scheme": "exact", "network": "base", "payload": EXACT}
NAMES = st.sampled_from(["X-PAYMENT", "PAYMENT-SIGNATURE"])

odd = st.sampled_from([True, 2**64, -(2**63), 1e308, "0x", "\n", "٣", "9" * 79, "\ud800", {}, []])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | odd
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
fuzz = settings(
    max_examples=300,
    deadline=timedelta(milliseconds=250),  # a header is read in well under one
    suppress_health_check=[HealthCheck.too_slow],
)


def holds(name, value):
    """Read a header; tell whether it was taken."""
    refusal = None
    try:
        payment = read_payment(lambda asked: [value] if asked == name else [])
    except InvalidRequest as error:  # and RequestTooLarge, which is one
        refusal = error
    if refusal is not None:
        assert refusal.code in {"payment_malformed", "payment_header_too_large"}
        assert len(refusal.message) < 1_000
        return False
    assert isinstance(payment, PaymentHeader)
    assert 0 <= payment.authorization.value < 2**256
    return True


def encoded(payload):
    return base64.b64encode(json.dumps(payload).encode()).decode()


def places(payload, path=()):
    """Every path into a payload."""
    yield path
    if isinstance(payload, dict):
        for key, inner in payload.items():
            yield from places(inner, (*path, key))


def replaced(payload, path, value):
    if not path:
        return value
    key, *rest = path
    return payload | {key: replaced(payload[key], rest, value)}


def test_the_headers_that_are_mutated_here_are_taken():
    assert holds("PAYMENT-SIGNATURE", encoded(V2))
    assert holds("X-PAYMENT", encoded(V1))


@fuzz
@given(NAMES, st.text() | st.binary(max_size=20_000).map(lambda data: data.decode("latin-1")))
def test_any_text(name, value):
    holds(name, value)


@fuzz
@given(NAMES, st.binary(max_size=15_000))
@example("PAYMENT-SIGNATURE", b"[" * 12_000)
@example("X-PAYMENT", b'{"x402Version":1,"payload":' * 450)
def test_any_bytes_in_base64(name, data):
    holds(name, base64.b64encode(data).decode())


@fuzz
@given(NAMES, json_values)
def test_any_json(name, value):
    holds(name, encoded(value))


@fuzz
@given(st.data(), st.sampled_from([("X-PAYMENT", V1), ("PAYMENT-SIGNATURE", V2)]))
def test_a_good_header_with_something_else_in_one_place(data, header):
    name, payload = header
    path = data.draw(st.sampled_from(list(places(payload))))
    holds(name, encoded(replaced(payload, path, data.draw(json_values))))


@fuzz
@given(
    st.sampled_from([("X-PAYMENT", V1), ("PAYMENT-SIGNATURE", V2)]),
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_a_good_header_with_some_bytes_changed(header, changes):
    name, payload = header
    data = bytearray(json.dumps(payload).encode())
    for place, byte in changes:
        data[place % len(data)] = byte
    holds(name, base64.b64encode(data).decode())
