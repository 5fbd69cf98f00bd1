"""Selling over x402: what is asked for, and whether a payment pays for it.

`identify` judges by the payment's own words, without any I/O; `verify` asks the facilitator.
Between them the ledger can say whether the payment was seen before. Knows no HTTP.
Source: x402 specification, `exact` scheme on EVM (EIP-3009) and its payment flows.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from x402.extensions.payment_identifier import (
    PAYMENT_IDENTIFIER,
    declare_payment_identifier_extension,
)
from x402.schemas import PaymentPayload, PaymentRequirements, ResourceInfo
from x402.schemas import PaymentRequired as Challenge

from tinybrain.config import SETTLE_MARGIN_S, Flow, Settings
from tinybrain.errors import PaymentRequired
from tinybrain.payments.eip3009 import FIRST_V, Domain, recover_signer
from tinybrain.payments.facilitators import Facilitator
from tinybrain.payments.pricing import Product
from tinybrain.payments.records import NewPayment, Purpose
from tinybrain.payments.wire import PaymentHeader
from tinybrain.usdc import Usdc, format_usdc

CLOCK_SKEW_S = 600  # stock clients backdate validAfter by this much; forward dating is capped by it
HINT = (
    "Use an x402 client (Python: x402, TypeScript: @x402/fetch, shell: tinybrain ask), or read "
    "the PAYMENT-REQUIRED header, sign it, and send the request again with PAYMENT-SIGNATURE."
)


class Merchant:
    """Asks for payments, and tells those that pay from those that do not."""

    def __init__(
        self,
        settings: Settings,
        facilitator: Facilitator,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if settings.pay_to is None:
            raise ValueError("settings must have passed require_serving()")
        self._facilitator = facilitator
        self._clock = clock
        self._network = settings.network
        self._token = settings.token
        self._pay_to = settings.pay_to
        self._public_url = settings.public_url
        self._timeout_s = settings.payment_timeout_s
        self._least_s = {
            "authorization": settings.answer_timeout_s + SETTLE_MARGIN_S,
            "upfront": SETTLE_MARGIN_S,
        }
        self._domain = Domain.of(settings.network, self._token)

    def requirements(self, product: Product) -> PaymentRequirements:
        """What a payment for a product must be."""
        extra = {"name": self._token.name, "version": self._token.version}
        if product.flow != "authorization":  # clients older than the flows know no other
            extra["paymentFlow"] = product.flow
        return PaymentRequirements(
            scheme="exact",
            network=self._network,
            asset=self._token.address,
            amount=str(product.price),
            pay_to=self._pay_to,
            max_timeout_seconds=self._timeout_s,
            extra=extra,
        )

    def challenge(self, product: Product, error: str) -> Challenge:
        """The 402 answer for a product, in version 2; `error` is a code."""
        return Challenge(
            error=error,
            resource=self._resource(product),
            accepts=[self.requirements(product)],
            extensions={PAYMENT_IDENTIFIER: declare_payment_identifier_extension()},
        )

    def required(self, product: Product) -> PaymentRequired:
        """The error for a request that carries no payment."""
        return PaymentRequired(
            f"{product.description} costs {format_usdc(product.price)} of USDC. {HINT}"
        )

    def identify(
        self,
        header: PaymentHeader,
        product: Product,
        *,
        request_hash: str,
        purpose: Purpose = Purpose.ANSWER,
    ) -> NewPayment:
        """Whose payment this is, if it is signed by the payer and for this product.

        Its window may have closed: who retries late must still find the recorded answer.

        Raises:
            PaymentRequired: Its terms are others, or the signature is not the payer's.
        """
        asked, authorization = self.requirements(product), header.authorization
        _check_terms(header, asked)
        # A key's owner only: what a contract says of a signature can change before settlement.
        signer = recover_signer(authorization, header.signature, self._domain)
        if signer is None or signer.lower() != authorization.payer.lower():
            raise _refused("signature")
        payload = PaymentPayload(
            payload={
                "authorization": authorization.to_wire(),
                "signature": _canonical(header.signature),
            },
            accepted=asked,
            resource=self._resource(product),
        )
        return NewPayment(
            network=asked.network,
            asset=asked.asset.lower(),
            payer=authorization.payer.lower(),
            nonce=authorization.nonce.lower(),
            pay_to=asked.pay_to.lower(),
            amount=Usdc(authorization.value),
            valid_before=authorization.valid_before,
            request_hash=request_hash,
            payload=payload.model_dump(by_alias=True, exclude_none=True),
            requirements=asked.model_dump(by_alias=True, exclude_none=True),
            purpose=purpose,
            flow=product.flow,
            identifier=header.identifier,
        )

    async def verify(self, payment: NewPayment) -> None:
        """Check that an identified payment can be settled in time, and is covered.

        Raises:
            PaymentRequired: It cannot, or is not; the code says why.
            PaymentServiceError: The facilitator could not be asked. The same payment may be sent
                again.
        """
        payload = payload_of(payment.payload)
        valid_after = int(payload.payload["authorization"]["validAfter"])
        self._check_window(valid_after, payment.valid_before, payment.flow)
        verdict = await self._facilitator.verify(payload, requirements_of(payment.requirements))
        if not verdict.is_valid:
            raise _refused(verdict.invalid_reason or "")

    def _resource(self, product: Product) -> ResourceInfo:
        return ResourceInfo(
            url=f"{self._public_url}{product.path}",
            description=product.description,
            mime_type="application/json",
        )

    def _check_window(self, valid_after: int, valid_before: int, flow: Flow) -> None:
        now = self._clock()
        least_s, most_s = self._least_s[flow], self._timeout_s + CLOCK_SKEW_S
        if valid_after > now:
            raise PaymentRequired(
                "The payment is not valid yet: validAfter lies in the future. Check your clock "
                "and sign again.",
                code="payment_not_yet_valid",
            )
        if valid_before < now + least_s:
            raise PaymentRequired(
                f"The payment expires too soon: validBefore must be at least {least_s:.0f} "
                "seconds ahead, to outlast the answer and its settlement. Sign again with "
                f"{self._timeout_s} seconds.",
                code="payment_expired",
            )
        if valid_before > now + most_s:
            raise PaymentRequired(
                f"The payment stays valid for too long: validBefore may be at most {most_s} "
                f"seconds ahead. Sign again with {self._timeout_s}.",
                code="payment_window_too_long",
            )


def requirements_of(stored: dict[str, Any]) -> PaymentRequirements:
    """Read back what `NewPayment.requirements` holds."""
    return PaymentRequirements.model_validate(stored)


def payload_of(stored: dict[str, Any]) -> PaymentPayload:
    """Read back what `NewPayment.payload` holds."""
    return PaymentPayload.model_validate(stored)


def _check_terms(header: PaymentHeader, asked: PaymentRequirements) -> None:
    said, signed = header.terms, header.authorization
    differences = [
        f"{name} is {found}, not {wanted}"
        for name, found, wanted in (
            ("scheme", said.scheme, asked.scheme),
            ("network", said.network, asked.network),
            ("asset", said.asset, asked.asset),
            ("amount", said.amount, asked.amount),
            ("payTo", said.pay_to, asked.pay_to),
            ("signed value", signed.value, asked.amount),
            ("signed recipient", signed.to, asked.pay_to),
        )
        if found is not None and str(found).lower() != wanted.lower()
    ]
    if differences:
        raise PaymentRequired(
            f"The payment is for other terms: {'; '.join(differences)[:500]}. Sign the terms "
            "of the PAYMENT-REQUIRED header.",
            code="payment_invalid",
        )


def _canonical(signature: str) -> str:
    """With v of 27 or 28, as every facilitator takes it; some wallets count from 0."""
    v = int(signature[-2:], 16)
    return f"{signature[:-2]}{v if v >= FIRST_V else v + FIRST_V:02x}"


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
