"""Buying over x402: an httpx transport that pays 402 answers from the treasury, within caps.

Money is reserved in the ledger before anything is signed. One question is signed for once: a
lost answer is asked for again with the same signature, and what stays unknown keeps its
reservation until the chain has been asked (`housekeeping.py`). Only the upstream named in the
settings is paid; of what it answers before it is paid, nothing but headers is read.
"""

import asyncio
import base64
import logging
import re
from typing import Any

import httpx
import orjson
from eth_account import Account
from x402 import x402Client
from x402.http.utils import decode_payment_response_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.schemas import PaymentError, PaymentPayload, PaymentRequirements
from x402.schemas import PaymentRequired as Challenge

from tinybrain.config import ADDRESS, Settings
from tinybrain.errors import BudgetExceeded, UpstreamError
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import NewPurchase
from tinybrain.telemetry.metrics import Metrics
from tinybrain.usdc import Usdc, format_usdc

log = logging.getLogger(__name__)

RESENT_STATUSES = {409, 502, 503, 504}  # 409: a seller that still works on the lost request
RESEND_PAUSES_S = (0.5, 2.0)
MAX_CHALLENGE_BYTES = 65_536
LONGEST_WINDOW_S = 3_600  # a seller may not ask for signatures that stay valid longer
X402_VERSION = 2
QUOTE_TIMEOUT_S = 20.0  # httpx bounds each read only, so a slow drip of headers would never end
AMOUNT = re.compile(r"[1-9][0-9]{0,17}")  # fits the ledger's 64 bits
TRANSACTION = re.compile(r"0x[0-9a-fA-F]{64}")


class PayingTransport(httpx.AsyncBaseTransport):
    """Pays for what answers 402; everything else passes through.

    A paid response carries `tinybrain_cost` (atomic USDC) and `tinybrain_transaction` in its
    extensions; the request names its answer in `tinybrain_answer_id`.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        metrics: Metrics,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        quote_timeout_s: float = QUOTE_TIMEOUT_S,
    ) -> None:
        if settings.treasury_private_key is None:
            raise ValueError("settings must have passed require_serving()")
        account = Account.from_key(settings.treasury_private_key.get_secret_value())
        self._payer = account.address
        self._settings = settings
        self._origin = _origin(httpx.URL(settings.upstream_url))
        self._token = settings.token
        self._ledger = ledger
        self._metrics = metrics
        self._inner = transport or httpx.AsyncHTTPTransport()
        self._quote_timeout_s = quote_timeout_s
        self._client = x402Client()
        register_exact_evm_client(
            self._client, EthAccountSigner(account), networks=settings.network
        )
        self._client.set_spend_controls(
            {
                "allowed_assets": [
                    {
                        "network": settings.network,
                        "asset": self._token.address,
                        "max_amount_per_payment": str(settings.max_cost_per_call),
                    }
                ]
            }
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and if the answer is 402, pay and send again.

        Raises:
            BudgetExceeded: A cap refuses the quote; nothing was signed.
            UpstreamError: The quote cannot be accepted, or the paid request was sent elsewhere.
            httpx.TransportError: The upstream could not be reached, or the paid answer was lost.
        """
        await request.aread()
        response = await self._ask(request)
        if response.status_code != httpx.codes.PAYMENT_REQUIRED:
            return response
        await response.aclose()  # unread: its body could be endless
        if _origin(request.url) != self._origin:
            raise _not_allowed("another host than that of TINYBRAIN_UPSTREAM_URL")
        quote = _quote(response.headers.get("PAYMENT-REQUIRED"))
        offer = self._choose(quote)
        purchase_id = await self._reserve(request, offer)
        payload = await self._sign(quote, offer, purchase_id)
        paid = await self._send_paid(request, payload)
        return await self._receive(paid, purchase_id, Usdc(int(offer.amount)), request.url.host)

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._inner.aclose()

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(self._quote_timeout_s):
                return await self._inner.handle_async_request(request)
        except TimeoutError:
            raise UpstreamError(
                f"The upstream did not say within {self._quote_timeout_s:g} s what it asks for."
            ) from None

    def _choose(self, quote: Challenge) -> PaymentRequirements:
        """The cheapest offer that is allowed."""
        allowed = [offer for offer in quote.accepts if self._is_allowed(offer)]
        if not allowed:
            raise _not_allowed("scheme, network, asset, recipient, amount, time or way of transfer")
        offer = min(allowed, key=lambda offer: int(offer.amount))
        cap = self._settings.max_cost_per_call
        if int(offer.amount) > cap:
            raise BudgetExceeded(
                f"The upstream asks for {format_usdc(int(offer.amount))}, more than the "
                f"{format_usdc(cap)} that TINYBRAIN_MAX_COST_PER_CALL allows."
            )
        return offer

    def _is_allowed(self, offer: PaymentRequirements) -> bool:
        pinned = self._settings.upstream_pay_to
        return (
            offer.scheme == "exact"
            and offer.network == self._settings.network
            and offer.asset.lower() == self._token.address.lower()
            and ADDRESS.fullmatch(offer.pay_to) is not None
            and (pinned is None or offer.pay_to.lower() == pinned.lower())
            and AMOUNT.fullmatch(offer.amount) is not None
            and 0 < offer.max_timeout_seconds <= LONGEST_WINDOW_S
            and self._is_transfer(offer.extra or {})
        )

    def _is_transfer(self, extra: dict[str, Any]) -> bool:
        """Whether a plain signed transfer of our token is asked for."""
        return (
            extra.get("paymentFlow") in (None, "authorization", "upfront")
            and extra.get("assetTransferMethod") in (None, "eip3009")
            and extra.get("name") in (None, self._token.name)
            and extra.get("version") in (None, self._token.version)
        )

    async def _reserve(self, request: httpx.Request, offer: PaymentRequirements) -> int:
        return await self._ledger.reserve(
            NewPurchase(
                answer_id=str(request.extensions.get("tinybrain_answer_id", "")),
                provider=request.url.host,
                network=offer.network,
                asset=offer.asset.lower(),
                payer=self._payer.lower(),
                pay_to=offer.pay_to.lower(),
                amount=Usdc(int(offer.amount)),
            ),
            pin=self._settings.upstream_pay_to is None,
        )

    async def _sign(
        self, quote: Challenge, offer: PaymentRequirements, purchase_id: int
    ) -> PaymentPayload:
        """Sign for a reserved purchase, and note it before it can be sent."""
        try:
            payload = await self._authorize(quote, offer)
        except BaseException:
            await self._ledger.release_purchase(purchase_id, note="not signed")
            raise
        authorization = payload.payload["authorization"]
        await self._ledger.signed(
            purchase_id,
            nonce=authorization["nonce"],
            valid_before=int(authorization["validBefore"]),
        )
        return payload

    async def _authorize(self, quote: Challenge, offer: PaymentRequirements) -> PaymentPayload:
        narrowed = quote.model_copy(update={"accepts": [offer]})
        try:
            payload: Any = await self._client.create_payment_payload(narrowed)
        except (PaymentError, ValueError) as error:
            raise _not_allowed("terms") from error
        if not isinstance(payload, PaymentPayload) or "authorization" not in payload.payload:
            raise _not_allowed("way of transfer")
        return payload

    async def _send_paid(self, request: httpx.Request, payload: PaymentPayload) -> httpx.Response:
        headers = {
            **request.headers,
            "PAYMENT-SIGNATURE": encode_payment_signature_header(payload),
        }
        paid_request = httpx.Request(
            request.method,
            request.url,
            headers=headers,
            content=request.content,
            extensions=request.extensions,
        )
        for pause_s in RESEND_PAUSES_S:
            try:
                response = await self._inner.handle_async_request(paid_request)
            except httpx.TransportError:
                log.info("a paid answer was lost; asking again with the same signature")
            else:
                if response.status_code not in RESENT_STATUSES:
                    return response
                await response.aclose()
            await asyncio.sleep(pause_s)
        return await self._inner.handle_async_request(paid_request)

    async def _receive(
        self, response: httpx.Response, purchase_id: int, cost: Usdc, provider: str
    ) -> httpx.Response:
        if response.is_redirect:  # whoever followed it would be asked to pay again
            await response.aclose()
            raise UpstreamError("The upstream sends a paid request elsewhere; it is not followed.")
        if not response.is_success:
            # It may have been collected all the same: the reservation stays until it expires
            # and the chain has been asked.
            return response
        transaction = _transaction(response.headers.get("PAYMENT-RESPONSE"))
        if transaction is not None:
            await self._note_paid(response, purchase_id, transaction)
            self._metrics.spend(cost, provider)
        # Without a receipt the reservation stands until the chain has told (`housekeeping.py`).
        response.extensions["tinybrain_cost"] = cost
        response.extensions["tinybrain_transaction"] = transaction
        return response

    async def _note_paid(
        self, response: httpx.Response, purchase_id: int, transaction: str
    ) -> None:
        try:
            await self._ledger.paid(purchase_id, transaction=transaction)
        except BaseException:
            await response.aclose()
            raise


def _not_allowed(what: str) -> UpstreamError:
    return UpstreamError(
        f"The upstream asks to be paid in a way that is not allowed here ({what}).",
        code="upstream_payment_terms",
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _quote(header: str | None) -> Challenge:
    if header is None or len(header) > MAX_CHALLENGE_BYTES:
        raise UpstreamError("The upstream's 402 answer has no usable PAYMENT-REQUIRED header.")
    try:
        quote = Challenge.model_validate(orjson.loads(base64.b64decode(header)))
    except ValueError:
        raise UpstreamError("The upstream's PAYMENT-REQUIRED header cannot be read.") from None
    if quote.x402_version != X402_VERSION:
        raise UpstreamError("The upstream's PAYMENT-REQUIRED header is not of x402 version 2.")
    return quote


def _transaction(header: str | None) -> str | None:
    """The hash that a receipt of success names."""
    if header is None:
        return None
    try:
        receipt = decode_payment_response_header(header)
    except ValueError:
        return None
    if not receipt.success or not TRANSACTION.fullmatch(receipt.transaction):
        return None
    return receipt.transaction.lower()
