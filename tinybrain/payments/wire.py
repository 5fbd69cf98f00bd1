"""x402's wire formats, version 1 and 2: payment headers in, challenges and receipts out.

Knows shapes and bounds only; whether a payment is worth anything is `merchant`'s to say.
Nothing of a header is kept that was not checked here: a facilitator sees what is rebuilt from it.
Source: x402 specification, HTTP transport versions 1 and 2, `exact` scheme on EVM (EIP-3009).
"""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NoReturn

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from x402.extensions.payment_identifier import (
    PAYMENT_ID_MAX_LENGTH,
    PAYMENT_ID_MIN_LENGTH,
    PAYMENT_ID_PATTERN,
)
from x402.http.constants import (
    PAYMENT_RESPONSE_HEADER,
    PAYMENT_SIGNATURE_HEADER,
    X_PAYMENT_HEADER,
    X_PAYMENT_RESPONSE_HEADER,
)
from x402.http.utils import encode_payment_required_header, encode_payment_response_header
from x402.mechanisms.evm.v1.constants import V1_NETWORK_CHAIN_IDS
from x402.schemas import PaymentRequired as Challenge
from x402.schemas import SettleResponse
from x402.schemas.v1 import PaymentRequirementsV1

from tinybrain.errors import InvalidRequest, PaymentRequired, RequestTooLarge
from tinybrain.payments import eip3009
from tinybrain.payments.records import NewPayment

Version = Literal[1, 2]

MAX_HEADER_CHARS = 16_384
HEADERS: dict[str, Version] = {PAYMENT_SIGNATURE_HEADER: 2, X_PAYMENT_HEADER: 1}
BASE64 = re.compile(r"([A-Za-z0-9+/_-]+)={0,2}")
NUMBER = re.compile(r"[0-9]{1,78}")
CAIP2_BY_V1_NAME = {name: f"eip155:{chain}" for name, chain in V1_NETWORK_CHAIN_IDS.items()}
V1_NAME_BY_CAIP2 = {caip2: name for name, caip2 in CAIP2_BY_V1_NAME.items()}


def _number(value: object) -> object:
    """Clients write numbers as strings or as numbers; pydantic alone would take 1.0 and true."""
    if type(value) is int or (isinstance(value, str) and NUMBER.fullmatch(value)):
        return int(value)
    raise ValueError("is no whole number")


def _caip2(name: object) -> object:
    if not isinstance(name, str) or name not in CAIP2_BY_V1_NAME:
        raise ValueError("is no network of x402 version 1")
    return CAIP2_BY_V1_NAME[name]


Uint256 = Annotated[int, BeforeValidator(_number), Field(ge=0, lt=2**256)]
Time = Annotated[int, BeforeValidator(_number), Field(ge=0, lt=2**63)]
Address = Annotated[str, Field(pattern=eip3009.ADDRESS)]
Identifier = Annotated[
    str,
    Field(
        min_length=PAYMENT_ID_MIN_LENGTH,
        max_length=PAYMENT_ID_MAX_LENGTH,
        pattern=PAYMENT_ID_PATTERN.pattern,
    ),
]


class Authorization(eip3009.Authorization):
    """As callers send it: by its names in the wire format only, with whole numbers only."""

    model_config = ConfigDict(populate_by_name=False)

    value: Uint256
    valid_after: Time = Field(alias="validAfter")
    valid_before: Time = Field(alias="validBefore")


class Terms(BaseModel):
    """What the payer says was asked for; version 1 says no more than scheme and network."""

    model_config = ConfigDict(frozen=True)

    scheme: str
    network: str
    asset: str | None = None
    amount: Uint256 | None = None
    pay_to: str | None = Field(default=None, alias="payTo")


class _FullTerms(Terms):
    asset: str
    amount: Uint256
    pay_to: str = Field(alias="payTo")


class _Exact(BaseModel):
    authorization: Authorization
    signature: str = Field(pattern=r"^0x[0-9a-fA-F]{130}$")  # a contract's may be longer


class _IdentifierInfo(BaseModel):
    id: Identifier | None = None


class _IdentifierExtension(BaseModel):
    # The SDK's validator would also run the JSON schema that came with the payment.
    info: _IdentifierInfo


class _Extensions(BaseModel):
    payment_identifier: _IdentifierExtension | None = Field(None, alias="payment-identifier")


class _PayloadV1(BaseModel):
    scheme: str
    network: Annotated[str, BeforeValidator(_caip2)]
    payload: _Exact

    def header(self) -> "PaymentHeader":
        terms = Terms(scheme=self.scheme, network=self.network)
        return PaymentHeader(1, terms, self.payload.authorization, self.payload.signature)


class _PayloadV2(BaseModel):
    accepted: _FullTerms
    payload: _Exact
    extensions: _Extensions | None = None

    def header(self) -> "PaymentHeader":
        extension = self.extensions.payment_identifier if self.extensions else None
        return PaymentHeader(
            2,
            self.accepted,
            self.payload.authorization,
            self.payload.signature,
            identifier=extension.info.id if extension else None,
        )


@dataclass(frozen=True, slots=True)
class PaymentHeader:
    """A payment as it came, well-formed and not yet judged. Networks are CAIP-2."""

    version: Version
    terms: Terms
    authorization: Authorization
    signature: str = field(repr=False)
    identifier: str | None = None


def read_payment(values_of: Callable[[str], Sequence[str]]) -> PaymentHeader | None:
    """The request's payment, or None if it carries none.

    `values_of` returns all values of a header by its name.

    Raises:
        InvalidRequest: There is more than one, or it cannot be read.
        RequestTooLarge: It is longer than MAX_HEADER_CHARS.
    """
    given = [(name, value) for name in HEADERS for value in values_of(name)]
    if not given:
        return None
    if len(given) > 1:
        _malformed(given[-1][0], f"the request carries {len(given)} payments and may carry one")
    return _read(*given[0])


def challenge_header(challenge: Challenge) -> str:
    """The value of PAYMENT-REQUIRED, which version 2 goes by."""
    return encode_payment_required_header(challenge)


def challenge_body(
    challenge: Challenge, error: PaymentRequired, *, openai_client: bool
) -> dict[str, Any]:
    """The body of a 402, which clients of version 1, OpenAI's SDKs and people go by.

    Version 1's Python client takes a first 402 only if `error` is a string; OpenAI's SDKs show a
    message only out of an `error` object. No body suits both, so the caller says whether one of
    OpenAI's asks (they send X-Stainless-Lang). A refused payment gets the object in any case:
    clients of version 1 do not read a second 402, and its code tells what to do.
    """
    body = error.body()
    if error.code == PaymentRequired.default_code and not openai_client:
        body = {"error": error.message, "code": error.code}
    if challenge.accepts[0].network in V1_NAME_BY_CAIP2:
        body |= {"x402Version": 1, "accepts": _accepts_v1(challenge)}
    return body


def settlement_headers(
    version: Version, payment: NewPayment, transaction: str | None
) -> dict[str, str]:
    """PAYMENT-RESPONSE of a settled payment, and for version 1 also X-PAYMENT-RESPONSE."""
    response = SettleResponse(
        success=True,
        payer=payment.payer,
        transaction=transaction or "",
        network=payment.network,
    )
    headers = {PAYMENT_RESPONSE_HEADER: encode_payment_response_header(response)}
    if version == 1:
        response.network = V1_NAME_BY_CAIP2.get(payment.network, payment.network)
        headers[X_PAYMENT_RESPONSE_HEADER] = encode_payment_response_header(response)
    return headers


def _read(name: str, value: str) -> PaymentHeader:
    if len(value) > MAX_HEADER_CHARS:
        raise RequestTooLarge(
            f"{name} is {len(value)} characters long, at most {MAX_HEADER_CHARS} are read. Send "
            "the base64 of one PaymentPayload.",
            code="payment_header_too_large",
            param=name,
        )
    try:
        data = orjson.loads(_decode_base64(value))  # refuses what nests deeper than 1024
    except ValueError:
        _malformed(name, "it is not the base64 of a JSON document")
    version = data.get("x402Version") if isinstance(data, dict) else None
    if type(version) is not int or version != HEADERS[name]:
        _malformed(name, f"its x402Version is not {HEADERS[name]}{_belongs(version)}")
    try:
        return (_PayloadV1 if version == 1 else _PayloadV2).model_validate(data).header()
    except ValidationError as error:
        fields = {".".join(str(part) for part in fault["loc"]) for fault in error.errors()}
        _malformed(name, f"missing or wrong: {', '.join(sorted(fields))[:300]}")


def _decode_base64(value: str) -> bytes:
    match = BASE64.fullmatch(value)
    if match is None:
        raise ValueError("no base64")
    digits = match[1].translate(str.maketrans("-_", "+/"))
    return base64.b64decode(digits + "=" * (-len(digits) % 4))


def _belongs(version: object) -> str:
    homes = [name for name, home in HEADERS.items() if type(version) is int and home == version]
    return f"; version {version} belongs in {homes[0]}" if homes else ""


def _malformed(name: str, why: str) -> NoReturn:
    raise InvalidRequest(
        f"{name} cannot be read: {why}. Send the base64 of one x402 PaymentPayload for the exact "
        f"scheme (EIP-3009), in {PAYMENT_SIGNATURE_HEADER} for version 2 or {X_PAYMENT_HEADER} "
        "for version 1.",
        code="payment_malformed",
        param=name,
    ) from None


def _accepts_v1(challenge: Challenge) -> list[dict[str, Any]]:
    resource = challenge.resource
    return [
        PaymentRequirementsV1(
            scheme=offer.scheme,
            network=V1_NAME_BY_CAIP2[offer.network],
            max_amount_required=offer.amount,
            resource=resource.url if resource else "",
            description=resource.description if resource else None,
            mime_type=resource.mime_type if resource else None,
            pay_to=offer.pay_to,
            max_timeout_seconds=offer.max_timeout_seconds,
            asset=offer.asset,
            extra=offer.extra,
        ).model_dump(by_alias=True, exclude_none=True)
        for offer in challenge.accepts
    ]
