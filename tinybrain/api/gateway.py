"""The life of a paid question: admit, answer, record, settle. Knows no HTTP.

Whatever ends an answer (its last token, an error, a caller who leaves, a time-out) is recorded
before anything more is sent.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import Context
from dataclasses import replace
from typing import Any

from tinybrain.api.admission import Admission, Admissions, Credentials, Repeated
from tinybrain.api.bar_tabs import BarTabs
from tinybrain.api.choices import Part, merged
from tinybrain.api.labelling import answered
from tinybrain.api.model_cards import ModelCard
from tinybrain.api.progress import Progress
from tinybrain.api.rate_limit import Refusals
from tinybrain.api.replies import events_of, reply_of
from tinybrain.api.requests import ChatRequest, seeded
from tinybrain.api.running import Events, Receipt, RunningAnswer
from tinybrain.api.tab_office import TabOffice
from tinybrain.config import SETTLE_MARGIN_S, Settings
from tinybrain.errors import (
    AnswerFailed,
    PaymentConflict,
    PaymentPending,
    TinyBrainError,
)
from tinybrain.payments.collecting import SettlePayment, collect, require_collected
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.pricing import PriceList, Product
from tinybrain.payments.receipts import Receipts
from tinybrain.payments.records import (
    MIXED,
    AnswerRecord,
    Charge,
    NewPayment,
    Recorded,
)
from tinybrain.payments.settlement import Outcome
from tinybrain.routing.cascade import Cascade
from tinybrain.routing.online.auditor import Answered
from tinybrain.routing.online.service import Online
from tinybrain.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Settle = Callable[[str], Awaitable[Outcome | None]]
"""Settles the payment of an answer now, and tells where it stands."""
GasLow = Callable[[], Awaitable[bool]]
"""Whether the gas wallet pays for few settlements only."""

LOOK_EVERY_S = 0.2  # at an answer that another replica makes


class Gateway:
    """Joins ledger, merchant, cascade and settlement."""

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        receipts: Receipts,
        merchant: Merchant,
        prices: PriceList,
        cascade: Cascade,
        tabs: TabOffice,
        bar_tabs: BarTabs,
        settle: Settle,
        settle_payment: SettlePayment,
        gas_low: GasLow,
        metrics: Metrics,
        model_card: ModelCard,
        online: Online | None = None,
    ) -> None:
        self.settings = settings
        self.model_card = model_card
        self.ledger = ledger
        self.receipts = receipts
        self.merchant = merchant
        self.prices = prices
        self.tabs = tabs
        self.bar_tabs = bar_tabs
        self.settle = settle
        self.settle_payment = settle_payment
        self.gas_low = gas_low
        self.metrics = metrics
        self.refusals = Refusals(settings.max_refusals)
        self._admissions = Admissions(
            ledger, merchant, self.refusals, metrics, api_key=settings.api_key
        )
        self.online = online
        self._cascade = cascade
        self._running: dict[str, RunningAnswer] = {}
        self._background: set[asyncio.Task[Any]] = set()

    async def admit(
        self,
        credentials: Credentials,
        request: ChatRequest,
        product: Product,
        *,
        request_hash: str,
        started: float,
    ) -> Admission | Repeated:
        """See Admissions.admit."""
        return await self._admissions.admit(
            credentials, product, mode=request.mode, request_hash=request_hash, started=started
        )

    def answer(self, request: ChatRequest, admission: Admission) -> Events:
        """Begin an answer; yields the events of its choices, then a Receipt once it is recorded.

        Raises:
            AnswerFailed: No model could answer in time; nothing is charged.
            PaymentRequired, PaymentPending: A payment that is settled first was not, or not yet.
            InvalidRequest: The conversation does not fit the model; nothing is charged.
            LedgerUnavailable: It could not be recorded; nothing will be charged.
        """

        def left(running: RunningAnswer) -> None:
            self._spawn(self._left(running, admission, task))

        running = RunningAnswer(on_left=left)
        self._running[admission.answer_id] = running
        task = self._spawn(self._produce(running, request, admission))
        task.add_done_callback(lambda _: self._running.pop(admission.answer_id, None))
        return running.read(shown=request.stream)

    async def repeat(self, request: ChatRequest, repeated: Repeated) -> Events:
        """Yield again what the same request was answered before, or is being answered now.

        Raises:
            PaymentConflict: The answer is not kept any more, or its payment was given back.
            AnswerFailed: It failed meanwhile; the same payment may be sent again.
        """
        running = self._running.get(repeated.recorded.answer_id)
        if running is not None:
            async with aclosing(running.read(shown=request.stream)) as events:
                async for event in events:
                    yield event
            return
        recorded = await self._ended(repeated)
        if recorded.reply is None:
            raise PaymentConflict(
                f"This payment was used before; its answer {_what_became_of(recorded)}. The "
                f"receipt is at /v1/receipts/{recorded.answer_id}. Sign a new payment for a new "
                "answer."
            )
        for event in events_of(recorded.reply):
            yield event

    def start(self) -> None:
        """Begin to follow the routing target; needs a running event loop."""
        if self.online is not None:
            self.online.start()

    async def close(self) -> None:
        """Wait for the answers and settlements under way; labels under way are given up."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        if self.online is not None:
            await self.online.close()

    # --- making an answer

    async def _produce(
        self, running: RunningAnswer, request: ChatRequest, admission: Admission
    ) -> None:
        failure: TinyBrainError | None = AnswerFailed("The answer was given up.")
        try:
            running.add(await self._make(running, request, admission))
            failure = None
        except Exception as error:  # noqa: BLE001  # every failure is the readers' to see
            failure = _as_failure(error)
        finally:
            running.end(failure)  # whatever happened: nobody may wait for ever

    async def _make(
        self, running: RunningAnswer, request: ChatRequest, admission: Admission
    ) -> Receipt:
        progress = Progress(admission.started, request.choices)
        try:
            if admission.flow == "upfront":
                await self._settle_upfront(admission)
            async with aclosing(self._events(request, admission)) as events:
                async for part in events:
                    progress.note(part)
                    running.add(part)
        except asyncio.CancelledError:
            # What was sent cannot be unread; what was bought a moment ago is our loss.
            charge = Charge.YES if running.delivered else Charge.NO
            await self._finish(admission, progress.record("aborted", "the caller left"), charge)
            raise
        except Exception as error:
            failure = _as_failure(error)
            await self._finish(admission, progress.record("failed", failure.message), Charge.NO)
            raise failure from error
        return await self._complete(request, admission, progress)

    async def _complete(
        self, request: ChatRequest, admission: Admission, progress: Progress
    ) -> Receipt:
        record = progress.record("completed")
        receipt = Receipt(admission.answer_id, self._receipt(request, admission, record, progress))
        reply = reply_of(progress.choices, receipt) if admission.paid else None
        await self._finish(admission, record, Charge.YES, reply)
        self._offer(answered(request, admission.answer_id, progress.choices[0], record))
        return receipt

    def _offer(self, labelled: Answered | None) -> None:
        if self.online is not None and labelled is not None:
            self.online.offer(labelled)

    def _events(self, request: ChatRequest, admission: Admission) -> AsyncGenerator[Part, None]:
        choices = [
            self._cascade.answer(
                request.messages,
                seeded(request.sampling, choice),
                answer_id=admission.answer_id,
                policy=request.mode,
                local_sampling=seeded(request.local_sampling, choice),
            )
            for choice in range(request.choices)
        ]
        return self._within_time(merged(choices), admission)

    async def _within_time(
        self, events: AsyncGenerator[Part, None], admission: Admission
    ) -> AsyncGenerator[Part, None]:
        limit_s = self.settings.answer_timeout_s
        left_s = limit_s - (time.perf_counter() - admission.started)
        deadline = asyncio.get_running_loop().time() + left_s
        async with aclosing(events) as open_events:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(open_events)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise AnswerFailed(
                        f"The answer took longer than {limit_s:.0f} seconds and was given up. "
                        "Nothing is charged; ask for fewer tokens.",
                        code="timeout",
                    ) from None
                yield event

    async def _settle_upfront(self, admission: Admission) -> None:
        """Settle before any work; an outcome that stays unknown is refunded if it comes true."""
        outcome = await collect(self.settle, admission.answer_id, wait_s=SETTLE_MARGIN_S)
        if outcome is None:
            raise PaymentPending(
                "The payment is on its way and its outcome is not known yet. If it arrives after "
                f"all it is refunded; see /v1/receipts/{admission.answer_id}."
            )
        require_collected(outcome)

    async def _left(
        self, running: RunningAnswer, admission: Admission, task: asyncio.Task[Any]
    ) -> None:
        """Nobody reads any more. What is paid for is finished, so that it can be fetched again."""
        bought = admission.paid and await self.ledger.was_bought(admission.answer_id)
        goes_on = bought or (admission.paid and running.delivered)
        if not goes_on and not running.readers:
            task.cancel()

    async def _finish(
        self,
        admission: Admission,
        record: AnswerRecord,
        charge: Charge,
        reply: dict[str, Any] | None = None,
    ) -> None:
        """Record the end in a task of its own: the one that asks may be cancelled meanwhile."""
        await asyncio.shield(self._spawn(self._record(admission, record, charge, reply)))

    async def _record(
        self,
        admission: Admission,
        record: AnswerRecord,
        charge: Charge,
        reply: dict[str, Any] | None,
    ) -> None:
        if self.online is not None and record.signals is not None:
            record = replace(record, checkpoint=self.online.checkpoint)
        await self.ledger.finish(admission.answer_id, record, charge=charge, reply=reply)
        self.metrics.answer(
            model=record.answered_by or "none",
            mode=admission.mode,
            outcome=record.outcome,
            ttft_s=None if record.ttft_ms is None else record.ttft_ms / 1000,
            total_s=(record.total_ms or 0) / 1000,
        )
        if record.answered_by in ("upstream", MIXED):
            self.metrics.escalation(record.reason or "none")
        if charge is not Charge.NO and admission.payment is not None:
            self._spawn(self._settle_quietly(admission.answer_id))

    async def _ended(self, repeated: Repeated) -> Recorded:
        deadline = time.monotonic() + self.settings.answer_timeout_s + SETTLE_MARGIN_S
        recorded: Recorded | None = repeated.recorded
        while recorded is not None and recorded.outcome == "running":
            if time.monotonic() > deadline:
                raise PaymentPending("The answer is still being made. Send the same request again.")
            await asyncio.sleep(LOOK_EVERY_S)
            recorded = await repeated.look()
        if recorded is None:
            raise AnswerFailed(
                "The answer failed and nothing was charged; the same payment may be sent again."
            )
        return recorded

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        # Ray Serve cancels what was called in the context of a request whose caller has left.
        task: asyncio.Task[Any] = asyncio.create_task(work, context=Context())
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
        progress: Progress,
    ) -> dict[str, Any]:
        payment = admission.payment
        receipt = {
            "receipt": admission.answer_id,
            "receipt_url": f"{self.settings.public_url}/v1/receipts/{admission.answer_id}",
            "requested_model": request.model,
            "answered_by": record.answered_by,
            "model": record.model,
            "escalation_reason": record.reason,
            "rule": record.rule,
            "fallback": record.fallback,
            "perplexity": record.perplexity,
            "user_perplexity": progress.user_perplexity,
            "confidence": record.confidence,
            "ttft_ms": record.ttft_ms,
            "total_ms": record.total_ms,
            "price_atomic": admission.price,
            "cost_atomic": progress.cost,
            "profit_atomic": admission.price - progress.cost,
            "cost_transaction": progress.transaction,
            "payment": None if payment is None else _paid(payment, admission),
        }
        return receipt if record.choices is None else receipt | {"choices": record.choices}


def _paid(payment: NewPayment, admission: Admission) -> dict[str, Any]:
    return {
        "state": "settled" if admission.flow == "upfront" else "served",
        "flow": admission.flow,
        "network": payment.network,
        "asset": payment.asset,
        "payer": payment.payer,
        "pay_to": payment.pay_to,
        "amount": payment.amount,
    }


def _what_became_of(recorded: Recorded) -> str:
    if recorded.outcome == "completed":
        return "is not kept any more"
    return "ended early"


def _as_failure(error: Exception) -> TinyBrainError:
    if isinstance(error, TinyBrainError):
        return error
    log.error("an answer failed unexpectedly", exc_info=error)
    return AnswerFailed("The answer failed inside the service. Nothing is charged; ask again.")
