"""The routes that answer: OpenAI's and TinyChat's own."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinybrain.api import native, openai
from tinybrain.api.admission import Repeated, hash_request
from tinybrain.api.bounds import read_body
from tinybrain.api.choices import Choice, Part
from tinybrain.api.credentials import read_credentials
from tinybrain.api.gateway import Gateway
from tinybrain.api.requests import ChatRequest
from tinybrain.api.running import Event, Events, Receipt
from tinybrain.api.sse import DONE, EventStream, event
from tinybrain.chat import Prefilled
from tinybrain.errors import PaymentRequired, TinyBrainError
from tinybrain.payments.records import NewPayment, PaymentState
from tinybrain.payments.wire import PaymentHeader, settlement_headers
from tinybrain.routing.events import Completed, Continued, Decision, Delta, ReasoningDelta

SETTLE_WAIT_S = 8.0


@dataclass(frozen=True, slots=True)
class Order:
    """An answer under way or made before, and what pays for it."""

    answer_id: str
    events: Events
    payment: NewPayment | None
    header: PaymentHeader | None
    upfront: bool
    repeated: bool

    @property
    def headers(self) -> dict[str, str]:
        """What every answer carries."""
        return {"X-TinyBrain-Receipt": self.answer_id}


async def chat_completions(request: Request) -> Response:
    """POST /v1/chat/completions, OpenAI's format, streaming or not."""
    gateway: Gateway = request.app.state.gateway
    started = time.perf_counter()
    body = await read_body(request)
    chat = openai.parse_request(body, gateway.settings)
    order = await place_order(request, chat, body, started)
    completion = openai.Completion(order.answer_id, chat.model)
    if not chat.stream:
        return await _whole(gateway, completion, chat, order)
    events = await opened(order.events)
    headers = await upfront_headers(gateway, order)
    stream = _openai_stream(completion, chat, events)
    return EventStream(stream, headers, source=order.events)


async def native_completions(request: Request) -> Response:
    """POST /chat/completions, TinyChat's format; TinyChat alone answers."""
    gateway: Gateway = request.app.state.gateway
    started = time.perf_counter()
    body = await read_body(request)
    chat = native.parse_request(body)
    order = await place_order(request, chat, body, started)
    events = await opened(order.events)
    headers = await upfront_headers(gateway, order)
    return EventStream(_native_stream(events), headers, source=order.events)


async def place_order(request: Request, chat: ChatRequest, body: bytes, started: float) -> Order:
    """Admit a request, and begin its answer or find the one it asked for before.

    Raises:
        TinyBrainError: See Gateway.admit.
    """
    gateway: Gateway = request.app.state.gateway
    path = request.url.path
    product = gateway.prices.product(path, chat.model, choices=chat.choices)
    request.state.product = product  # a 402 tells its terms
    credentials = read_credentials(request, behind_proxy=gateway.settings.behind_proxy)
    request_hash = hash_request(path, body, key=credentials.idempotency_key)
    admitted = await gateway.admit(
        credentials, chat, product, request_hash=request_hash, started=started
    )
    if isinstance(admitted, Repeated):
        return Order(
            admitted.recorded.answer_id,
            gateway.repeat(chat, admitted),
            admitted.payment,
            credentials.payment,
            upfront=False,
            repeated=True,
        )
    return Order(
        admitted.answer_id,
        gateway.answer(chat, admitted),
        admitted.payment,
        credentials.payment,
        upfront=admitted.flow == "upfront",
        repeated=False,
    )


async def opened(events: Events) -> Events:
    """Wait for the first words, so that a failure before them gets its own HTTP status."""
    held: list[Event] = []
    try:
        async for item in events:
            held.append(item)
            if isinstance(item, Receipt) or item.is_text:
                break
    except BaseException:
        await events.aclose()
        raise
    return _chain(held, events)


async def upfront_headers(gateway: Gateway, order: Order) -> dict[str, str]:
    """The headers of a stream; one that was paid upfront tells its settlement."""
    if not order.upfront:
        return order.headers
    return {**order.headers, **await _settled(gateway, order, {"payment": {}})}


async def _chain(held: list[Event], events: Events) -> Events:
    for item in held:
        yield item
    async for item in events:
        yield item


async def _openai_stream(
    completion: openai.Completion, chat: ChatRequest, events: Events
) -> AsyncGenerator[bytes, None]:
    completed: dict[int, Completed] = {}
    try:
        async for item in events:
            match item:
                case Part(choice, Decision() as decision):
                    completion.answered_by(choice, decision.model)
                    opening = {"role": "assistant", "content": ""}
                    yield event(completion.chunk(choice, opening, extra=_who(decision)))
                case Part(choice, Continued() as continued):
                    completion.answered_by(choice, continued.model)
                    yield event(completion.chunk(choice, {}, extra=_who_goes_on(continued)))
                case Part(choice, ReasoningDelta(text)):
                    yield event(completion.chunk(choice, {"reasoning_content": text}))
                case Part(choice, Delta(text, logprobs)):
                    yield event(completion.chunk(choice, {"content": text}, logprobs=logprobs))
                case Part(choice, Completed() as end):
                    completed[choice] = end
                case Receipt(_, body) if completed:
                    for chunk in completion.ends(completed, body, usage=chat.include_usage):
                        yield event(chunk)
                    yield DONE
    except TinyBrainError as error:
        yield event(error.body())


async def _native_stream(events: Events) -> AsyncGenerator[bytes, None]:
    gpu = 0
    try:
        async for item in events:
            match item:
                case Part(_, Prefilled() as prefilled):
                    gpu = prefilled.gpu
                    yield event(native.perplexity_event(prefilled.perplexity))
                case Part(_, Delta(text)):
                    yield event(native.token_event(text, gpu))
                case Receipt(_, body):
                    yield event(native.done_event(body))
    except TinyBrainError as error:
        yield event(error.body())


async def _whole(
    gateway: Gateway, completion: openai.Completion, chat: ChatRequest, order: Order
) -> Response:
    choices = [Choice() for _ in range(chat.choices)]
    receipt: dict[str, Any] = {}
    try:
        async for item in order.events:
            if isinstance(item, Receipt):
                receipt = item.body
            else:
                choices[item.choice].note(item.event)
    finally:
        await order.events.aclose()
    if not all(choice.completed for choice in choices):
        raise TinyBrainError("The answer ended without its last event.")
    headers = await _settled(gateway, order, receipt)
    return JSONResponse(
        completion.whole(choices, receipt),
        headers={**order.headers, "Cache-Control": "private, no-store", **headers},
    )


async def _settled(gateway: Gateway, order: Order, receipt: dict[str, Any]) -> dict[str, str]:
    """Settle an answer that is sent whole before it is sent, as x402 clients expect.

    If the outcome is not known in time the answer is sent without PAYMENT-RESPONSE, and the
    receipt tells later. An answer that turned out to be a debt is withheld.
    """
    payment, header = order.payment, order.header
    if payment is None or header is None:
        return {}
    try:
        async with asyncio.timeout(SETTLE_WAIT_S):
            outcome = await gateway.settle(order.answer_id)
    except Exception:  # noqa: BLE001  # the outbox is drained anyway; the answer stands
        outcome = None
    if outcome is None:
        return {}
    if outcome.state in (PaymentState.DEBT, PaymentState.RELEASED):
        if outcome.state is PaymentState.DEBT and not order.repeated:
            await gateway.ledger.withheld(outcome.payment_id)
        raise PaymentRequired(
            f"The payment could not be collected: {outcome.note}. The answer is withheld; sign a "
            "new payment.",
            code="payment_failed",
        )
    if outcome.state is not PaymentState.SETTLED:
        return {}
    receipt["payment"] |= {"state": "settled", "transaction": outcome.transaction}
    return settlement_headers(header.version, payment, outcome.transaction)


def _who(decision: Decision) -> dict[str, Any]:
    return {
        "answered_by": decision.answered_by,
        "escalation_reason": decision.reason,
        "perplexity": decision.perplexity,
        "confidence": decision.confidence,
    }


def _who_goes_on(continued: Continued) -> dict[str, Any]:
    return {
        "answered_by": continued.answered_by,
        "escalation_reason": continued.reason,
        "confidence": continued.confidence,
        "fallback": continued.fallback,
    }
