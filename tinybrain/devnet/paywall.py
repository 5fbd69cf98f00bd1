"""Sells one thing at one price over x402: verify, claim, serve, settle.

An authorization buys one answer. Sent again with the same request it gets that answer again,
or another try if the first was lost after it was paid; with another request it is refused.
Claims live in this process, so one process must do all the selling.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from pydantic import ValidationError
from x402.http.utils import decode_payment_signature_header, encode_payment_required_header
from x402.mechanisms.evm.constants import (
    ERR_INSUFFICIENT_BALANCE,
    ERR_NONCE_ALREADY_USED,
    ERR_SETTLEMENT_PENDING,
)
from x402.schemas import (
    PaymentPayload,
    PaymentRequirements,
    ResourceInfo,
    SettleResponse,
)
from x402.schemas import PaymentRequired as Challenge

from tinybrain.errors import InvalidRequest, PaymentConflict, PaymentRequired, PaymentServiceError
from tinybrain.payments.facilitators import Facilitator
from tinybrain.usdc import format_usdc

MAX_HEADER_CHARS = 16 * 1024
MAX_PURCHASES = 10_000  # older ones cannot be told from new, but the chain refuses their nonce


@dataclass(slots=True)
class Purchase:
    """An authorization that was claimed, and what became of it."""

    key: tuple[str, str]
    payload: PaymentPayload
    fingerprint: bytes
    serving: bool = True
    attempted: bool = False
    receipt: SettleResponse | None = None
    answer: bytes | None = None


class Paywall:
    """Takes `requirements.amount` for each answer."""

    def __init__(self, facilitator: Facilitator, requirements: PaymentRequirements) -> None:
        self._facilitator = facilitator
        self._requirements = requirements
        self._purchases: OrderedDict[tuple[str, str], Purchase] = OrderedDict()

    def challenge(self, url: str, description: str) -> str:
        """The PAYMENT-REQUIRED header."""
        resource = ResourceInfo(url=url, description=description, mime_type="application/json")
        return encode_payment_required_header(
            Challenge(x402_version=2, resource=resource, accepts=[self._requirements])
        )

    async def admit(self, header: str | None, request: bytes) -> Purchase:
        """Verify the PAYMENT-SIGNATURE header and claim its nonce for this request.

        Raises:
            InvalidRequest: The header is no x402 v2 payment.
            PaymentRequired: There is none, or it does not pay for this.
            PaymentConflict: It buys, or bought, something else, or is being served now.
            PaymentServiceError: The facilitator could not be asked.
        """
        if header is None:
            price = format_usdc(int(self._requirements.amount))
            raise PaymentRequired(f"This answer costs {price} in USDC.")
        payload = _decode(header)
        fingerprint = hashlib.sha256(header.encode() + request).digest()
        key = _nonce_key(payload)
        if known := self._purchases.get(key):
            return _resume(known, fingerprint)
        await self._verify(payload)
        if key in self._purchases:  # claimed by a copy of this request while we verified
            raise _replay("This authorization is being served now.")
        purchase = self._purchases[key] = Purchase(key, payload, fingerprint)
        if len(self._purchases) > MAX_PURCHASES:
            self._purchases.popitem(last=False)
        return purchase

    async def collect(self, purchase: Purchase) -> SettleResponse:
        """Settle a purchase; once is enough.

        Raises:
            PaymentRequired: The money could not be moved; the purchase is off.
            PaymentServiceError: Whether it moved is unknown; the same header may be sent again.
        """
        if purchase.receipt is None:
            before, purchase.attempted = purchase.attempted, True
            result = await self._facilitator.settle(purchase.payload, self._requirements)
            if before and result.error_reason == ERR_NONCE_ALREADY_USED:
                # Used after our own attempt, so it paid us: the first answer was lost.
                result = result.model_copy(update={"success": True, "error_reason": None})
            if result.error_reason == ERR_SETTLEMENT_PENDING:
                raise PaymentServiceError("The payment is sent and not mined yet; send it again.")
            if not result.success:
                purchase.attempted = False
                raise _invalid(f"Payment settlement failed: {result.error_reason}")
            purchase.receipt = result
        return purchase.receipt

    def finish(self, purchase: Purchase) -> None:
        """End serving; a purchase that was not paid is forgotten, so it can be tried again."""
        purchase.serving = False
        if not purchase.attempted:
            self._purchases.pop(purchase.key, None)

    async def _verify(self, payload: PaymentPayload) -> None:
        if payload.accepted != self._requirements:
            raise _invalid("The payment accepts other terms than those offered.")
        verdict = await self._facilitator.verify(payload, self._requirements)
        if verdict.is_valid:
            return
        if verdict.invalid_reason == ERR_INSUFFICIENT_BALANCE:
            raise PaymentRequired("The payer lacks the funds.", code="PAYMENT_UNFUNDED")
        raise _invalid(f"Payment verification failed: {verdict.invalid_reason}")


def _decode(header: str) -> PaymentPayload:
    if len(header) > MAX_HEADER_CHARS:
        raise InvalidRequest("The payment header is too long.")
    try:
        payload = decode_payment_signature_header(header)
    except (ValidationError, ValueError, TypeError, LookupError) as error:
        raise InvalidRequest("The payment header is no x402 payment.") from error
    if not isinstance(payload, PaymentPayload):
        raise InvalidRequest("The payment is of x402 version 1; this seller speaks version 2.")
    return payload


def _nonce_key(payload: PaymentPayload) -> tuple[str, str]:
    try:
        authorization = payload.payload["authorization"]
        return authorization["from"].lower(), authorization["nonce"].lower()
    except (LookupError, TypeError, AttributeError):
        raise InvalidRequest("The payment holds no EIP-3009 authorization.") from None


def _resume(purchase: Purchase, fingerprint: bytes) -> Purchase:
    if purchase.fingerprint != fingerprint:
        raise _replay("This authorization bought another answer.")
    if purchase.answer is None:
        if purchase.serving:
            raise _replay("This authorization is being served now.")
        purchase.serving = True
    return purchase


def _invalid(message: str) -> PaymentRequired:
    return PaymentRequired(message, code="PAYMENT_INVALID")


def _replay(message: str) -> PaymentConflict:
    return PaymentConflict(message, code="PAYMENT_REPLAY")
