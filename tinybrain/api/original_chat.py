"""The original's chat: POST /api/chat with `{"messages"}`, answered in events.

Each has `content`, `model`, `escalationReason`, `perplexity`, and on a tab `queryCost` in cents;
reasoning stands in `<think>…</think>` before the answer. The last has no content and the receipt,
then comes `[DONE]`; an error is `{"error"}`. Source: TinyBrain, app/api/chat.
"""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from tinybrain.api.bounds import check_messages, parse_body, read_body
from tinybrain.api.chat_routes import opened, place_order, upfront_headers
from tinybrain.api.choices import Part
from tinybrain.api.credentials import read_tab_token
from tinybrain.api.gateway import Gateway
from tinybrain.api.openai import AUTO_MODEL
from tinybrain.api.requests import ChatRequest
from tinybrain.api.running import Events, Receipt
from tinybrain.api.sse import DONE, EventStream, event
from tinybrain.chat import Message, Sampling
from tinybrain.errors import TinyBrainError
from tinybrain.routing.events import Continued, Decision, Delta, ReasoningDelta

ATOMIC_PER_CENT = 10_000


class _Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class _Body(BaseModel):
    messages: list[_Message]


async def original_chat(request: Request) -> Response:
    """POST /api/chat, paid like every question: over x402, from a tab, or by API key."""
    gateway: Gateway = request.app.state.gateway
    started = time.perf_counter()
    body = await read_body(request)
    order = await place_order(request, parse_request(body), body, started)
    events = await opened(order.events)
    headers = await upfront_headers(gateway, order)
    cost: dict[str, Any] = {}
    if order.header is None and read_tab_token(request) is not None:
        cost = {"queryCost": cents(request.state.product.price)}
    return EventStream(_stream(events, cost), headers, source=order.events)


def parse_request(body: bytes) -> ChatRequest:
    """Read the body of POST /api/chat.

    Raises:
        InvalidRequest: A field is missing or out of its bounds.
    """
    parsed = parse_body(_Body, body)
    messages = [Message(message.role, message.content) for message in parsed.messages]
    check_messages(messages)
    sampling = Sampling()
    return ChatRequest(
        messages=messages,
        sampling=sampling,
        # Greedy: the gate's confidence was measured on greedy answers.
        local_sampling=replace(sampling, temperature=0.0),
        model=AUTO_MODEL,
        mode="auto",
        stream=True,
    )


def cents(amount: int) -> int | float:
    """Atomic USDC in cents, whole if they are."""
    whole, rest = divmod(amount, ATOMIC_PER_CENT)
    return amount / ATOMIC_PER_CENT if rest else whole


async def _stream(events: Events, cost: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    told: dict[str, Any] = {}
    thinking = False
    try:
        async for item in events:
            match item:
                case Part(_, Decision() as decision):
                    told = _who(decision) | cost
                case Part(_, Continued(model=model, reason=reason)):
                    told |= {"model": model, "escalationReason": reason}
                case Part(_, ReasoningDelta(text)):
                    yield event({"content": text if thinking else f"<think>{text}", **told})
                    thinking = True
                case Part(_, Delta(text)):
                    yield event({"content": f"</think>{text}" if thinking else text, **told})
                    thinking = False
                case Receipt(_, body):
                    if thinking:
                        yield event({"content": "</think>", **told})
                    yield event({"content": "", **told, "x_tinybrain": body})
                    yield DONE
    except TinyBrainError as error:
        yield event({"error": error.message, "code": error.code})


def _who(decision: Decision) -> dict[str, Any]:
    return {
        "model": decision.model,
        "escalationReason": decision.reason,
        "perplexity": decision.perplexity,
    }
