"""Who may have an answer: finds what a request pays with, and claims it before any work.

A request whose payment, or whose idempotency key on a tab, was seen before with the same content
is not admitted again but led to the answer it bought. Knows no HTTP.
"""

import asyncio
import hashlib
import hmac
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import SecretStr

from tinybrain.api.rate_limit import Refusals
from tinybrain.config import Flow
from tinybrain.errors import (
    DebtOwed,
    PaymentConflict,
    PaymentRequired,
    TinyBrainError,
    TooManyUnsettled,
    Unauthorized,
)
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.pricing import Product
from tinybrain.payments.records import NewAnswer, NewPayment, Recorded, TabCharge
from tinybrain.payments.wire import PaymentHeader
from tinybrain.telemetry.metrics import Metrics
from tinybrain.usdc import Usdc

TAB_PREFIX = "tab_"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request carried to pay or to be let in, and where it came from."""

    payment: PaymentHeader | None = None
    tab: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    retried: bool = False
    address: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """An answer that may be worked on; what pays for it is claimed."""

    answer_id: str
    payment: NewPayment | None
    flow: Flow
    price: Usdc
    mode: str
    started: float  # perf_counter when the request arrived
    paid: bool


@dataclass(frozen=True, slots=True)
class Repeated:
    """An answer that was asked for before; `look` tells how it stands now, None if released."""

    recorded: Recorded
    look: Callable[[], Awaitable[Recorded | None]]
    payment: NewPayment | None


class Admissions:
    """Admits requests to answers."""

    def __init__(
        self,
        ledger: Ledger,
        merchant: Merchant,
        refusals: Refusals,
        metrics: Metrics,
        *,
        api_key: SecretStr | None,
    ) -> None:
        self._ledger = ledger
        self._merchant = merchant
        self._refusals = refusals
        self._metrics = metrics
        self._api_key = api_key

    async def admit(
        self,
        credentials: Credentials,
        product: Product,
        *,
        mode: str,
        request_hash: str,
        started: float,
    ) -> Admission | Repeated:
        """Find what pays for the answer, and claim it.

        Raises:
            Unauthorized: The API key or the tab is wrong.
            PaymentRequired, InvalidRequest: There is no payment, or it does not pay for this.
            PaymentConflict: The payment already buys something else.
            DebtOwed, TooManyUnsettled, TooManyRefusals: The payer must do something first.
            PaymentServiceError, LedgerUnavailable: It could not be checked or claimed.
        """
        answer_id = f"ans_{uuid.uuid4().hex}"
        payment = tab = None
        if credentials.payment is not None:
            payment = self._identify(credentials, product, request_hash)
            repeated = await self._verify(credentials, payment)
        elif credentials.tab is not None:
            tab = TabCharge(
                hash_token(credentials.tab),
                request_hash,
                credentials.idempotency_key,
                credentials.retried,
            )
            repeated = await self._charged_before(tab)
        elif credentials.api_key is not None:
            self._check_api_key(credentials.api_key)
            answer = NewAnswer(answer_id, "api_key", mode, Usdc(0))
            await self._ledger.begin(answer)
            return Admission(answer_id, None, "authorization", Usdc(0), mode, started, paid=False)
        else:
            raise self._merchant.required(product)
        if repeated is not None:
            self._metrics.claim("repeated")
            return repeated
        answer = NewAnswer(answer_id, "x402" if payment else "tab", mode, product.price)
        try:
            flow = await self._ledger.begin(answer, payment, tab)
        except PaymentConflict as error:
            return await self._lost_the_race(error, payment, tab)
        except (DebtOwed, TooManyUnsettled) as error:
            self._refused(credentials, error)
            raise
        self._metrics.claim("claimed")
        return Admission(answer_id, payment, flow, product.price, mode, started, paid=True)

    def _identify(
        self, credentials: Credentials, product: Product, request_hash: str
    ) -> NewPayment:
        assert credentials.payment is not None  # noqa: S101  # its caller has looked
        self._refusals.check(credentials.address)
        try:
            return self._merchant.identify(credentials.payment, product, request_hash=request_hash)
        except PaymentRequired as error:
            self._refused(credentials, error)
            raise

    async def _verify(self, credentials: Credentials, payment: NewPayment) -> Repeated | None:
        """Ask ledger and facilitator at once; what the ledger has seen needs no verification."""
        recorded, verdict = await asyncio.gather(
            self._recorded(payment), self._merchant.verify(payment), return_exceptions=True
        )
        if isinstance(recorded, BaseException):
            if isinstance(recorded, PaymentConflict):
                self._refused(credentials, recorded)  # signatures are public once settled
            raise recorded
        if recorded is not None:
            return recorded
        if isinstance(verdict, PaymentRequired):
            self._refused(credentials, verdict)
        if isinstance(verdict, BaseException):
            raise verdict
        return None

    def _refused(self, credentials: Credentials, error: TinyBrainError) -> None:
        self._refusals.note(credentials.address)
        self._metrics.claim(error.code)

    async def _recorded(self, payment: NewPayment) -> Repeated | None:
        recorded = await self._ledger.recorded(payment)
        if recorded is None:
            return None
        return Repeated(recorded, lambda: self._ledger.recorded(payment), payment)

    async def _charged_before(self, tab: TabCharge) -> Repeated | None:
        if tab.idempotency_key is None and not tab.retried:
            return None
        recorded = await self._ledger.charged_before(tab)
        if recorded is None:
            return None
        return Repeated(recorded, lambda: self._ledger.charged_before(tab), None)

    async def _lost_the_race(
        self, error: PaymentConflict, payment: NewPayment | None, tab: TabCharge | None
    ) -> Repeated:
        """The same request was admitted a moment ago; its twin waits for the same answer."""
        self._metrics.claim("duplicate")
        repeated = None
        if payment is not None:
            repeated = await self._recorded(payment)
        elif tab is not None:
            repeated = await self._charged_before(tab)
        if repeated is None:
            raise error
        return repeated

    def _check_api_key(self, given: str) -> None:
        key = self._api_key
        if key is None or not hmac.compare_digest(given.encode(), key.get_secret_value().encode()):
            raise Unauthorized(
                "The X-API-Key is wrong. Leave it out to pay for the answer over x402 instead."
            )


def hash_token(token: str) -> str:
    """What the ledger keeps of a tab's token: SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def hash_request(path: str, body: bytes, *, key: str | None) -> str:
    """Identifies a request; the ledger keeps it beside the payment that bought its answer.

    `key` is its Idempotency-Key: all else can be guessed or read on the chain once it is settled.
    """
    return hashlib.sha256(b"\0".join([path.encode(), (key or "").encode(), body])).hexdigest()
