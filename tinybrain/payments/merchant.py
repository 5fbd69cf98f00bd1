"""Selling over x402 v2: what is asked for, and whether a payment header pays for it.

Checks that need no network come first, then the facilitator verifies signature and balance.
Knows nothing of HTTP beyond the header values; the ledger's claim is the caller's next step.
Source: x402 specification, `exact` scheme on EVM (EIP-3009), HTTP transport v2.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_keys.exceptions import BadSignature
from pydantic import BaseModel, Field, ValidationError
from x402.http.utils import encode_payment_required_header, encode_payment_response_header
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    ResourceInfo,
    SettleResponse,
)
from x402.schemas import (
    PaymentRequired as Challenge,
)

from tinybrain.config import SETTLE_MARGIN_S, Settings
from tinybrain.errors import InvalidRequest, PaymentRequired, RequestTooLarge
from tinybrain.payments.facilitators import Facilitator
from tinybrain.payments.records import NewPayment
from tinybrain.usdc import Usdc, format_usdc

MAX_HEADER_CHARS = 16_384
CLOCK_SKEW_S = 600  # stock clients backdate validAfter by this much; forward dating is capped by it
X402_VERSION = 2
AUTHORIZATION_TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}
"""EIP-712 types of EIP-3009's transferWithAuthorization."""
HINT = (
    "Use an x402 client (Python: x402, TypeScript: @x402/fetch, shell: tinybrain ask), or read "
    "the PAYMENT-REQUIRED header, sign it, and send the request again with PAYMENT-SIGNATURE."
)


class _Authorization(BaseModel):
    payer: str = Field(alias="from", pattern=r"^0x[0-9a-fA-F]{40}$")
    to: str = Field(pattern=r"^0x[0-9a-fA-F]{40}$")
    value: int = Field(ge=0, lt=2**256)
    valid_after: int = Field(alias="validAfter", ge=0, lt=2**63)
    valid_before: int = Field(alias="validBefore", ge=0, lt=2**63)
    nonce: str = Field(pattern=r"^0x[0-9a-fA-F]{64}$")


class _Exact(BaseModel):
    authorization: _Authorization
    signature: str = Field(pattern=r"^0x[0-9a-fA-F]{130}$")


class Merchant:
    """Builds the challenge and admits payments that meet it."""

    def __init__(
        self,
        settings: Settings,
        facilitator: Facilitator,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        token = settings.token
        if settings.pay_to is None:
            raise ValueError("settings must have passed require_serving()")
        self._facilitator = facilitator
        self._clock = clock
        self._public_url = settings.public_url
        self._least_s = settings.answer_timeout_s + SETTLE_MARGIN_S
        self._domain = {
            "name": token.name,
            "version": token.version,
            "chainId": int(settings.network.partition(":")[2]),
            "verifyingContract": token.address,
        }
        self.price: Usdc = settings.price
        self.requirements = PaymentRequirements(
            scheme="exact",
            network=settings.network,
            asset=token.address,
            amount=str(settings.price),
            pay_to=settings.pay_to,
            max_timeout_seconds=settings.payment_timeout_s,
            extra={"name": token.name, "version": token.version},
        )

    def challenge(self, path: str, error: str) -> Challenge:
        """The v2 402 answer for a route."""
        return Challenge(
            error=error,
            resource=ResourceInfo(
                url=f"{self._public_url}{path}",
                description="One chat answer",
                mime_type="application/json",
            ),
            accepts=[self.requirements],
        )

    def required(self) -> PaymentRequired:
        """The error for a request that carries no payment."""
        return PaymentRequired(f"This answer costs {format_usdc(self.price)} of USDC. {HINT}")

    async def admit(self, header: str, *, request_hash: str) -> NewPayment:
        """Check a PAYMENT-SIGNATURE header against what is asked for.

        Raises:
            InvalidRequest, RequestTooLarge: It is malformed or too long.
            PaymentRequired: It does not pay for this answer; the code says why.
            PaymentServiceError: The facilitator could not be asked. The same header may be sent
                again.
        """
        payload, exact = _decode(header)
        self._check_terms(payload, exact.authorization)
        self._check_window(exact.authorization)
        self._check_signer(exact)
        verdict = await self._facilitator.verify(payload, self.requirements)
        if not verdict.is_valid:
            raise _refused(verdict.invalid_reason or "unknown reason")
        return self._record(payload, exact.authorization, request_hash)

    def identify(self, header: str, *, request_hash: str) -> NewPayment:
        """The ledger's key of a well-formed header, before it is verified."""
        payload, exact = _decode(header)
        return self._record(payload, exact.authorization, request_hash)

    def _record(
        self, payload: PaymentPayload, authorization: _Authorization, request_hash: str
    ) -> NewPayment:
        return NewPayment(
            network=self.requirements.network,
            asset=self.requirements.asset.lower(),
            payer=authorization.payer.lower(),
            nonce=authorization.nonce.lower(),
            pay_to=self.requirements.pay_to.lower(),
            amount=self.price,
            valid_before=authorization.valid_before,
            request_hash=request_hash,
            payload=payload.model_dump(by_alias=True, exclude_none=True),
            requirements=self.requirements.model_dump(by_alias=True, exclude_none=True),
        )

    def _check_terms(self, payload: PaymentPayload, authorization: _Authorization) -> None:
        asked, offered = self.requirements, payload.accepted
        differences = [
            f"{name} is {found}, asked for is {wanted}"
            for name, found, wanted in (
                ("scheme", offered.scheme, asked.scheme),
                ("network", offered.network, asked.network),
                ("asset", offered.asset.lower(), asked.asset.lower()),
                ("amount", offered.amount, asked.amount),
                ("payTo", offered.pay_to.lower(), asked.pay_to.lower()),
                ("signed value", str(authorization.value), asked.amount),
                ("signed recipient", authorization.to.lower(), asked.pay_to.lower()),
            )
            if found != wanted
        ]
        if differences:
            raise PaymentRequired(
                f"The payment is for other terms: {'; '.join(differences)[:500]}. Sign the terms "
                "of the PAYMENT-REQUIRED header.",
                code="payment_invalid",
            )

    def _check_signer(self, exact: _Exact) -> None:
        """The payer's own key must have signed: a contract's word can change before settlement."""
        authorization = exact.authorization
        message = {
            "from": authorization.payer,
            "to": authorization.to,
            "value": authorization.value,
            "validAfter": authorization.valid_after,
            "validBefore": authorization.valid_before,
            "nonce": bytes.fromhex(authorization.nonce[2:]),
        }
        signable = encode_typed_data(self._domain, AUTHORIZATION_TYPES, message)
        try:
            signer = Account.recover_message(signable, signature=exact.signature)
        except (BadSignature, ValueError):
            signer = ""
        if signer.lower() != authorization.payer.lower():
            raise _refused("signature")

    def _check_window(self, authorization: _Authorization) -> None:
        now = self._clock()
        left = authorization.valid_before - now
        if authorization.valid_after > now:
            raise PaymentRequired(
                "The payment is not valid yet: validAfter lies in the future. Check your clock "
                "and sign again.",
                code="payment_not_yet_valid",
            )
        if left < self._least_s:
            raise PaymentRequired(
                f"The payment expires too soon: validBefore must be at least {self._least_s:.0f} "
                "seconds ahead, to outlast the answer and its settlement. Sign again with "
                f"{self.requirements.max_timeout_seconds} seconds.",
                code="payment_expired",
            )
        if left > self.requirements.max_timeout_seconds + CLOCK_SKEW_S:
            raise PaymentRequired(
                "The payment stays valid for too long: validBefore may be at most "
                f"{self.requirements.max_timeout_seconds + CLOCK_SKEW_S} seconds ahead. Sign again "
                f"with {self.requirements.max_timeout_seconds}.",
                code="payment_window_too_long",
            )


def challenge_header(challenge: Challenge) -> str:
    """The value of PAYMENT-REQUIRED."""
    return encode_payment_required_header(challenge)


def response_header(
    *, success: bool, network: str, payer: str, transaction: str | None, error: str | None = None
) -> str:
    """The value of PAYMENT-RESPONSE."""
    return encode_payment_response_header(
        SettleResponse(
            success=success,
            error_reason=error,
            payer=payer,
            transaction=transaction or "",
            network=network,
        )
    )


def _decode(header: str) -> tuple[PaymentPayload, _Exact]:
    if len(header) > MAX_HEADER_CHARS:
        raise RequestTooLarge(
            f"PAYMENT-SIGNATURE is {len(header)} characters long, at most {MAX_HEADER_CHARS} are "
            "read. Send the base64 of one PaymentPayload.",
            code="payment_header_too_large",
        )
    try:
        data = json.loads(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _malformed("it is not the base64 of a JSON document") from None
    if not isinstance(data, dict) or data.get("x402Version") != X402_VERSION:
        raise _malformed(f"its x402Version is not {X402_VERSION}")
    try:
        payload = PaymentPayload.model_validate(data)
        return payload, _Exact.model_validate(payload.payload)
    except ValidationError as error:
        fields = {".".join(str(part) for part in fault["loc"]) for fault in error.errors()}
        raise _malformed(f"missing or wrong: {', '.join(sorted(fields))[:300]}") from None


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"PAYMENT-SIGNATURE cannot be read: {why}. Send the base64 of an x402 v2 PaymentPayload "
        "for the exact scheme (EIP-3009).",
        code="payment_malformed",
        param="PAYMENT-SIGNATURE",
    )


def _refused(reason: str) -> PaymentRequired:
    known: dict[str, tuple[str, str]] = {
        "insufficient": ("insufficient_funds", "the payer holds too little USDC"),
        "signature": ("payment_invalid_signature", "the signature is not the payer's"),
        "nonce_already_used": (
            "payment_already_used",
            "the authorization was used or cancelled on the chain",
        ),
        "valid_before": ("payment_expired", "it expires too soon"),
        "valid_after": ("payment_not_yet_valid", "it is not valid yet"),
    }
    for part, (code, words) in known.items():
        if part in reason:
            return PaymentRequired(f"The payment was refused: {words}. Sign a new one.", code=code)
    shown = reason if re.fullmatch(r"[a-z0-9_]{1,100}", reason) else "verification failed"
    return PaymentRequired(
        f"The payment was refused: {shown}. Sign a new one.", code="payment_invalid"
    )


def requirements_of(stored: dict[str, Any]) -> PaymentRequirements:
    """Read back what `NewPayment.requirements` holds."""
    return PaymentRequirements.model_validate(stored)


def payload_of(stored: dict[str, Any]) -> PaymentPayload:
    """Read back what `NewPayment.payload` holds."""
    return PaymentPayload.model_validate(stored)
