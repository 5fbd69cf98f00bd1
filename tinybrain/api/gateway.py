"""The life of a paid question: admit, claim, answer, record, settle. Knows no HTTP.

Whatever ends an answer (its last token, an error, a caller who leaves, a time-out) is recorded
before anything more is sent.
"""

import asyncio
import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tinybrain.api.requests import ChatRequest
from tinybrain.chat import LocalModel, Prefilled, Upstream
from tinybrain.config import Settings
from tinybrain.errors import (
    AnswerFailed,
    PaymentConflict,
    TinyBrainError,
    Unauthorized,
)
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import Facilitator
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.receipts import Receipts
from tinybrain.payments.records import AnswerRecord, Charge, NewAnswer, NewPayment
from tinybrain.payments.settlement import Outcome
from tinybrain.routing.cascade import Cascade
from tinybrain.routing.events import AnswerEvent, Completed, Decision, Delta, ReasoningDelta
from tinybrain.routing.gate import Gate
from tinybrain.routing.rules import Rules
from tinybrain.telemetry.metrics import Metrics
from tinybrain.usdc import Usdc

log = logging.getLogger(__name__)

Settle = Callable[[str], Awaitable[Outcome | None]]
"""Settles the payment of an answer now, and tells where it stands."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request carried to pay or to be let in."""

    payment: str | None
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Admission:
    """An answer that may be worked on; its payment is claimed."""

    answer_id: str
    payment: NewPayment | None
    price: Usdc
    mode: str
    started: float  # perf_counter when the request arrived


@dataclass(frozen=True, slots=True)
class Receipt:
    """The last event of an answer: it is recorded, and this is what the caller keeps."""

    answer_id: str
    body: dict[str, Any]


class Gateway:
    """Joins ledger, merchant, cascade and settlement."""

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        receipts: Receipts,
        merchant: Merchant,
        cascade: Cascade,
        settle: Settle,
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.receipts = receipts
        self.merchant = merchant
        self.settle = settle
        self.metrics = metrics
        self._cascade = cascade
        self._background: set[asyncio.Task[Any]] = set()

    async def admit(
        self, credentials: Credentials, request: ChatRequest, *, request_hash: str, started: float
    ) -> Admission:
        """Find what pays for the answer, and claim it before any work.

        Raises:
            Unauthorized: The API key is wrong.
            PaymentRequired, InvalidRequest: There is no payment, or it does not pay for this.
            PaymentConflict: The payment already buys an answer.
            TooManyUnsettled: The payer has too many answers not paid for yet.
            PaymentServiceError, LedgerUnavailable: It could not be checked or claimed.
        """
        answer_id = f"ans_{uuid.uuid4().hex}"
        payment = None
        if credentials.payment is not None:
            payment = await self._verify(credentials.payment, request_hash)
        elif credentials.api_key is not None:
            self._check_api_key(credentials.api_key)
        else:
            raise self.merchant.required()
        price = payment.amount if payment else Usdc(0)
        kind = "x402" if payment else "api_key"
        try:
            await self.ledger.begin(NewAnswer(answer_id, kind, request.mode, price), payment)
        except TinyBrainError as error:
            if payment:
                self._count_refusal(error)
            raise
        if payment:
            self.metrics.claim("claimed")
        return Admission(answer_id, payment, price, request.mode, started)

    async def answer(
        self, request: ChatRequest, admission: Admission
    ) -> AsyncGenerator[AnswerEvent | Receipt, None]:
        """Yield the cascade's events, then a Receipt once the answer is recorded.

        Raises:
            AnswerFailed: No model could answer in time; the payment is released.
            InvalidRequest: The conversation does not fit the model; the payment is released.
            LedgerUnavailable: It could not be recorded; the payment will be released.
        """
        progress = _Progress(admission.started)
        events = self._cascade.answer(
            request.messages,
            request.sampling,
            answer_id=admission.answer_id,
            policy=request.mode,
            local_sampling=request.local_sampling,
        )
        try:
            async with aclosing(self._within_time(events, admission)) as timed:
                async for event in timed:
                    progress.note(event)
                    yield event
                    progress.delivered = request.stream and progress.ttft_ms is not None
        except (asyncio.CancelledError, GeneratorExit, _SlowCaller) as error:
            # What was sent cannot be unread, and what was bought cannot be given back: a caller
            # who leaves after either has bought the answer. One who leaves before owes nothing.
            record = progress.record("aborted", str(error) or "the caller left")
            charge = Charge.YES if progress.delivered else Charge.IF_BOUGHT
            await self._finish(admission, record, charge)
            raise
        except Exception as error:
            failure = _as_failure(error)
            record = progress.record("failed", failure.message)
            await self._finish(admission, record, Charge.NO)
            raise failure from error
        record = progress.record("completed")
        await self._finish(admission, record, Charge.YES)
        yield Receipt(admission.answer_id, self._receipt(request, admission, record, progress))

    def settle_soon(self, answer_id: str) -> None:
        """Ask for settlement without waiting; the outbox is drained anyway."""
        self._spawn(self._settle_quietly(answer_id))

    async def close(self) -> None:
        """Wait for what runs in the background."""
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _verify(self, header: str, request_hash: str) -> NewPayment:
        try:
            await self.ledger.require_unused(
                self.merchant.identify(header, request_hash=request_hash)
            )
            return await self.merchant.admit(header, request_hash=request_hash)
        except TinyBrainError as error:
            self._count_refusal(error)
            raise

    def _count_refusal(self, error: TinyBrainError) -> None:
        self.metrics.claim("duplicate" if isinstance(error, PaymentConflict) else error.code)

    def _check_api_key(self, given: str) -> None:
        key = self.settings.api_key
        if key is None or not hmac.compare_digest(given.encode(), key.get_secret_value().encode()):
            raise Unauthorized(
                "The X-API-Key is wrong. Leave it out to pay for the answer over x402 instead."
            )

    async def _within_time(
        self, events: AsyncGenerator[AnswerEvent, None], admission: Admission
    ) -> AsyncGenerator[AnswerEvent, None]:
        loop = asyncio.get_running_loop()
        limit_s = self.settings.answer_timeout_s
        deadline = loop.time() + limit_s - (time.perf_counter() - admission.started)
        unread_s = 0.0
        async with aclosing(events) as open_events:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(open_events)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise _overrun(limit_s, unread_s) from None
                told = loop.time()
                yield event
                unread_s += loop.time() - told

    async def _finish(self, admission: Admission, record: AnswerRecord, charge: Charge) -> None:
        """Record the end in a task of its own: the one that asks may be cancelled meanwhile."""
        await asyncio.shield(self._spawn(self._record(admission, record, charge)))

    async def _record(self, admission: Admission, record: AnswerRecord, charge: Charge) -> None:
        await self.ledger.finish(admission.answer_id, record, charge=charge)
        self.metrics.answer(
            model=record.answered_by or "none",
            mode=admission.mode,
            outcome=record.outcome,
            ttft_s=None if record.ttft_ms is None else record.ttft_ms / 1000,
            total_s=(record.total_ms or 0) / 1000,
        )
        if record.answered_by == "upstream":
            self.metrics.escalation(record.reason or "none")

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _settle_quietly(self, answer_id: str) -> None:
        try:
            await self.settle(answer_id)
        except Exception as error:  # noqa: BLE001  # the outbox will be drained without us
            log.warning("settlement of %s was not reached: %s", answer_id, type(error).__name__)

    def _receipt(
        self,
        request: ChatRequest,
        admission: Admission,
        record: AnswerRecord,
        progress: "_Progress",
    ) -> dict[str, Any]:
        payment, completed = admission.payment, progress.completed
        return {
            "receipt": admission.answer_id,
            "receipt_url": f"{self.settings.public_url}/v1/receipts/{admission.answer_id}",
            "requested_model": request.model,
            "answered_by": record.answered_by,
            "model": record.model,
            "escalation_reason": record.reason,
            "rule": record.rule,
            "fallback": record.fallback,
            "perplexity": record.perplexity,
            "confidence": record.confidence,
            "ttft_ms": record.ttft_ms,
            "total_ms": record.total_ms,
            "price_atomic": admission.price,
            "cost_atomic": completed.cost if completed else 0,
            "cost_transaction": completed.transaction if completed else None,
            "payment": None
            if payment is None
            else {
                "state": "served",
                "network": payment.network,
                "asset": payment.asset,
                "payer": payment.payer,
                "pay_to": payment.pay_to,
                "amount": payment.amount,
            },
        }


class _Progress:
    """What is known of an answer so far."""

    def __init__(self, started: float) -> None:
        self._started = started
        self.ttft_ms: float | None = None
        self.delivered = False
        self._prefilled: Prefilled | None = None
        self._decision: Decision | None = None
        self.completed: Completed | None = None

    def note(self, event: AnswerEvent) -> None:
        match event:
            case Prefilled():
                self._prefilled = event
            case Decision():
                self._decision = event
            case Completed():
                self.completed = event
            case Delta() | ReasoningDelta():
                if self.ttft_ms is None:
                    self.ttft_ms = self._elapsed_ms()

    def record(self, outcome: str, error: str | None = None) -> AnswerRecord:
        decision, completed = self._decision, self.completed
        perplexity = self._prefilled.perplexity if self._prefilled else None
        return AnswerRecord(
            outcome=outcome,
            error=None if error is None else error[:300],
            answered_by=decision.answered_by if decision else None,
            model=decision.model if decision else None,
            reason=decision.reason if decision else None,
            rule=decision.rule if decision else None,
            signals=decision.signals.recorded() if decision and decision.signals else None,
            fallback=decision.fallback if decision else False,
            perplexity=perplexity,
            confidence=decision.confidence if decision else None,
            prompt_tokens=completed.prompt_tokens if completed else None,
            completion_tokens=completed.completion_tokens if completed else None,
            ttft_ms=self.ttft_ms,
            total_ms=self._elapsed_ms(),
        )

    def _elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)


class _SlowCaller(AnswerFailed):
    """The time of an answer ran out because its caller did not read."""


def _overrun(limit_s: float, unread_s: float) -> AnswerFailed:
    if unread_s > limit_s / 2:
        return _SlowCaller("The answer was given up: it was not read in time.", code="timeout")
    return AnswerFailed(
        f"The answer took longer than {limit_s:.0f} seconds and was given up. Nothing is charged; "
        "ask for fewer tokens.",
        code="timeout",
    )


def _as_failure(error: Exception) -> TinyBrainError:
    if isinstance(error, TinyBrainError):
        return error
    log.error("an answer failed unexpectedly", exc_info=error)
    return AnswerFailed("The answer failed inside the service. Nothing is charged; ask again.")


def build_gateway(
    settings: Settings,
    database: Database,
    verifier: Facilitator,
    *,
    local: LocalModel,
    upstream: Upstream,
    settle: Settle,
    metrics: Metrics,
) -> Gateway:
    """Join the parts as the settings say."""
    rules = Rules(
        keyword=settings.keyword_rule,
        complexity=settings.complexity_rule,
        self_referential=settings.self_referential_rule,
    )
    gate = Gate(settings.min_confidence, settings.hold_back_tokens)
    return Gateway(
        settings,
        ledger=Ledger(database, most_unsettled=settings.max_unsettled),
        receipts=Receipts(database),
        merchant=Merchant(settings, verifier),
        cascade=Cascade(local, upstream, rules=rules, gate=gate),
        settle=settle,
        metrics=metrics,
    )


def hash_request(path: str, body: bytes) -> str:
    """Identifies a request; the ledger keeps it beside the payment that bought its answer."""
    return hashlib.sha256(path.encode() + b"\0" + body).hexdigest()
