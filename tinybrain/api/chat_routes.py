"""The routes that answer: OpenAI's and TinyChat's own."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinybrain.api import native, openai
from tinybrain.api.bounds import read_body
from tinybrain.api.gateway import Admission, Credentials, Gateway, Receipt, hash_request
from tinybrain.api.requests import ChatRequest
from tinybrain.api.sse import DONE, EventStream, event
from tinybrain.chat import Prefilled
from tinybrain.errors import PaymentRequired, TinyBrainError
from tinybrain.payments.merchant import response_header
from tinybrain.payments.records import PaymentState
from tinybrain.routing.events import AnswerEvent, Completed, Decision, Delta, ReasoningDelta

SETTLE_WAIT_S = 8.0
Events = AsyncGenerator[AnswerEvent | Receipt, None]


async def chat_completions(request: Request) -> Response:
    """POST /v1/chat/completions, OpenAI's format, streaming or not."""
    gateway: Gateway = request.app.state.gateway
    started = time.perf_counter()
    body = await read_body(request)
    chat = openai.parse_request(body, gateway.settings)
    admission = await _admit(request, chat, body, started)
    completion = openai.Completion(admission.answer_id, chat.model)
    events = gateway.answer(chat, admission)
    if not chat.stream:
        return await _whole(gateway, completion, admission, events)
    opened = await _opened(events)
    stream = _openai_stream(gateway, completion, chat, opened)
    return EventStream(stream, _headers(admission), source=events)


async def native_completions(request: Request) -> Response:
    """POST /chat/completions, TinyChat's format; TinyChat alone answers."""
    gateway: Gateway = request.app.state.gateway
    started = time.perf_counter()
    body = await read_body(request)
    chat = native.parse_request(body)
    admission = await _admit(request, chat, body, started)
    events = gateway.answer(chat, admission)
    stream = _native_stream(gateway, await _opened(events))
    return EventStream(stream, _headers(admission), source=events)


async def _admit(request: Request, chat: ChatRequest, body: bytes, started: float) -> Admission:
    gateway: Gateway = request.app.state.gateway
    return await gateway.admit(
        Credentials(
            payment=request.headers.get("PAYMENT-SIGNATURE"),
            api_key=request.headers.get("X-API-Key"),
        ),
        chat,
        request_hash=hash_request(request.url.path, body),
        started=started,
    )


def _headers(admission: Admission) -> dict[str, str]:
    return {"X-TinyBrain-Receipt": admission.answer_id}


async def _opened(events: Events) -> Events:
    """Wait for the first words, so that a failure before them gets its own HTTP status."""
    held: list[AnswerEvent | Receipt] = []
    try:
        async for item in events:
            held.append(item)
            if isinstance(item, Delta | ReasoningDelta | Receipt):
                break
    except BaseException:
        await events.aclose()
        raise
    return _chain(held, events)


async def _chain(held: list[AnswerEvent | Receipt], events: Events) -> Events:
    for item in held:
        yield item
    async for item in events:
        yield item


async def _openai_stream(
    gateway: Gateway, completion: openai.Completion, chat: ChatRequest, events: Events
) -> AsyncGenerator[bytes, None]:
    finished: Completed | None = None
    try:
        async for item in events:
            match item:
                case Decision():
                    completion.answered_by(item.model)
                    yield event(
                        completion.chunk({"role": "assistant", "content": ""}, extra=_who(item))
                    )
                case ReasoningDelta(text):
                    yield event(completion.chunk({"reasoning_content": text}))
                case Delta(text):
                    yield event(completion.chunk({"content": text}))
                case Completed():
                    finished = item
                case Receipt(answer_id, body) if finished:
                    gateway.settle_soon(answer_id)
                    yield event(completion.chunk({}, finish=finished.finish_reason, extra=body))
                    if chat.include_usage:
                        yield event(
                            completion.usage_chunk(
                                finished.prompt_tokens, finished.completion_tokens
                            )
                        )
                    yield DONE
    except TinyBrainError as error:
        yield event(error.body())


async def _native_stream(gateway: Gateway, events: Events) -> AsyncGenerator[bytes, None]:
    gpu = 0
    try:
        async for item in events:
            match item:
                case Prefilled():
                    gpu = item.gpu
                    yield event(native.perplexity_event(item.perplexity))
                case Delta(text):
                    yield event(native.token_event(text, gpu))
                case Receipt(answer_id, body):
                    gateway.settle_soon(answer_id)
                    yield event(native.done_event(body))
    except TinyBrainError as error:
        yield event(error.body())


async def _whole(
    gateway: Gateway, completion: openai.Completion, admission: Admission, events: Events
) -> Response:
    content: list[str] = []
    reasoning: list[str] = []
    finished: Completed | None = None
    receipt: dict[str, Any] = {}
    try:
        async for item in events:
            match item:
                case Decision():
                    completion.answered_by(item.model)
                case Delta(text):
                    content.append(text)
                case ReasoningDelta(text):
                    reasoning.append(text)
                case Completed():
                    finished = item
                case Receipt():
                    receipt = item.body
    finally:
        await events.aclose()
    if finished is None:
        raise TinyBrainError("The answer ended without its last event.")
    headers = await _settle_first(gateway, admission, receipt)
    return JSONResponse(
        completion.whole(
            content="".join(content),
            reasoning="".join(reasoning),
            finish=finished.finish_reason,
            prompt_tokens=finished.prompt_tokens,
            completion_tokens=finished.completion_tokens,
            extra=receipt,
        ),
        headers={**_headers(admission), "Cache-Control": "private, no-store", **headers},
    )


async def _settle_first(
    gateway: Gateway, admission: Admission, receipt: dict[str, Any]
) -> dict[str, str]:
    """Settle an answer that is sent whole before it is sent, as x402 clients expect.

    If the outcome is not known in time the answer is sent without PAYMENT-RESPONSE, and the
    receipt tells later. An answer that turned out to be a debt is withheld.
    """
    payment = admission.payment
    if payment is None:
        return {}
    try:
        async with asyncio.timeout(SETTLE_WAIT_S):
            outcome = await gateway.settle(admission.answer_id)
    except Exception:  # noqa: BLE001  # the outbox is drained anyway; the answer stands
        outcome = None
    if outcome is None:
        return {}
    if outcome.state is PaymentState.DEBT:
        await gateway.ledger.withheld(outcome.payment_id)
        raise PaymentRequired(
            f"The payment could not be collected: {outcome.note}. The answer is withheld; sign a "
            "new payment.",
            code="payment_failed",
        )
    if outcome.state is not PaymentState.SETTLED:
        return {}
    receipt["payment"] |= {"state": "settled", "transaction": outcome.transaction}
    return {
        "PAYMENT-RESPONSE": response_header(
            success=True,
            network=payment.network,
            payer=payment.payer,
            transaction=outcome.transaction,
        )
    }


def _who(decision: Decision) -> dict[str, Any]:
    return {
        "answered_by": decision.answered_by,
        "escalation_reason": decision.reason,
        "perplexity": decision.perplexity,
        "confidence": decision.confidence,
    }
