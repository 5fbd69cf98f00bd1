"""A larger model for sale in BlockRun's wire format: OpenAI's chat completions behind x402.

`python -m tinybrain.devnet.upstream PORT`; whom to pay and the facilitator come from the settings.
Nobody is charged for an answer that failed before its first token; a caller who leaves stops it.
"""

import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from x402.http.constants import (
    PAYMENT_REQUIRED_HEADER,
    PAYMENT_RESPONSE_HEADER,
    PAYMENT_SIGNATURE_HEADER,
)
from x402.http.utils import encode_payment_response_header
from x402.schemas import PaymentRequirements, SettleResponse

from tinybrain.chat import Finished, Message, Text
from tinybrain.config import Settings, load_settings
from tinybrain.devnet.completions import ChatRequest, Completion
from tinybrain.devnet.http_server import EXPLAIN_ERRORS, HEALTH, read_body, serve
from tinybrain.devnet.paywall import Paywall, Purchase
from tinybrain.devnet.smollm2 import NAME, SmolLM2, find_weights
from tinybrain.errors import (
    ConfigError,
    ModelNotFound,
    PaymentConflict,
    PaymentRequired,
    TinyBrainError,
)
from tinybrain.payments.facilitators import Facilitator, build_verifier
from tinybrain.usdc import ATOMIC_PER_DOLLAR, Usdc

PRICE = Usdc(1_000)
ALIAS = "deepseek/deepseek-reasoner"
MODELS = (ALIAS, NAME)
DESCRIPTION = f"SmolLM2-135M-Instruct on the devnet; {ALIAS} is an alias of it"
MAX_BODY_BYTES = 256 * 1024
PAYMENT_TIMEOUT_S = 300
CLIENT_LEFT = 499

Events = AsyncGenerator[Text | Finished]


class Shop:
    """The routes of the seller."""

    def __init__(self, model: SmolLM2, paywall: Paywall) -> None:
        self._model = model
        self._paywall = paywall

    async def complete(self, request: Request) -> Response:
        """POST /api/v1/chat/completions."""
        order = await read_body(request, ChatRequest, MAX_BODY_BYTES)
        if order.model not in MODELS:
            raise ModelNotFound(f"{order.model} is not sold here; try one of {', '.join(MODELS)}.")
        try:
            header = request.headers.get(PAYMENT_SIGNATURE_HEADER)
            purchase = await self._paywall.admit(header, order.model_dump_json().encode())
            return await self._serve(request, order, purchase)
        except PaymentRequired as error:
            challenge = self._paywall.challenge(str(request.url), DESCRIPTION)
            return _refusal(error, {PAYMENT_REQUIRED_HEADER: challenge})
        except PaymentConflict as error:
            return _refusal(error, {"Retry-After": "1"})

    async def models(self, _: Request) -> Response:
        """GET /api/v1/models."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": NAME} for name in MODELS]
        return JSONResponse({"object": "list", "data": data})

    async def pricing(self, _: Request) -> Response:
        """GET /api/pricing."""
        price = {"billingMode": "flat", "flatPrice": PRICE / ATOMIC_PER_DOLLAR}
        models = [{"id": name, "name": NAME, "provider": "devnet", **price} for name in MODELS]
        return JSONResponse({"models": models})

    async def _serve(self, request: Request, order: ChatRequest, purchase: Purchase) -> Response:
        if purchase.answer is not None:
            return _paid(order, await self._paywall.collect(purchase), purchase.answer)
        messages = [Message(turn.role, turn.content) for turn in order.messages]
        events = self._model.generate(messages, order.sampling())
        answer = self._stream if order.stream else self._whole
        try:
            return await answer(request, order, events, purchase)
        except BaseException:
            await events.aclose()
            self._paywall.finish(purchase)
            raise

    async def _whole(
        self, request: Request, order: ChatRequest, events: Events, purchase: Purchase
    ) -> Response:
        text = ""
        async with aclosing(events):
            async for event in events:
                if await request.is_disconnected():
                    break
                if isinstance(event, Finished):
                    receipt = await self._paywall.collect(purchase)
                    purchase.answer = Completion(order).whole(text, event)
                    self._paywall.finish(purchase)
                    return _paid(order, receipt, purchase.answer)
                text += event.text
        self._paywall.finish(purchase)
        return Response(status_code=CLIENT_LEFT)

    async def _stream(
        self, _: Request, order: ChatRequest, events: Events, purchase: Purchase
    ) -> Response:
        completion = Completion(order)
        first = completion.event(await anext(events))
        receipt = await self._paywall.collect(purchase)

        async def relay() -> AsyncGenerator[bytes]:
            sent = [first]
            yield first
            try:
                async for event in events:
                    sent.append(completion.event(event))
                    if isinstance(event, Finished):
                        purchase.answer = b"".join(sent)
                    yield sent[-1]
            except TinyBrainError as error:
                yield b"data: " + json.dumps(error.body()).encode() + b"\n\n"

        async def close() -> None:
            await events.aclose()
            self._paywall.finish(purchase)

        return _Stream(relay(), close, headers=_receipt(receipt))


class _Stream(StreamingResponse):
    """Server-sent events that call `close` however they end."""

    media_type = "text/event-stream"

    def __init__(
        self,
        content: AsyncIterator[bytes],
        close: Callable[[], Awaitable[None]],
        headers: dict[str, str],
    ) -> None:
        super().__init__(content, headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()


def _paid(order: ChatRequest, receipt: SettleResponse, answer: bytes) -> Response:
    media_type = _Stream.media_type if order.stream else "application/json"
    return Response(answer, headers=_receipt(receipt), media_type=media_type)


def _receipt(receipt: SettleResponse) -> dict[str, str]:
    return {PAYMENT_RESPONSE_HEADER: encode_payment_response_header(receipt)}


def _refusal(error: TinyBrainError, headers: dict[str, str]) -> Response:
    # BlockRun's clients look for the code beside the error.
    return JSONResponse({**error.body(), "code": error.code}, error.status, headers)


def build_app(model: SmolLM2, facilitator: Facilitator, settings: Settings) -> Starlette:
    """The seller's application; it pays `settings.pay_to`.

    Raises:
        ConfigError: `pay_to` is not set.
    """
    if settings.pay_to is None:
        raise ConfigError("TINYBRAIN_PAY_TO is missing: the seller must know whom to have paid.")
    token = settings.token
    requirements = PaymentRequirements(
        scheme="exact",
        network=settings.network,
        asset=token.address,
        amount=str(PRICE),
        pay_to=settings.pay_to,
        max_timeout_seconds=PAYMENT_TIMEOUT_S,
        extra={"name": token.name, "version": token.version},
    )
    shop = Shop(model, Paywall(facilitator, requirements))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await facilitator.aclose()

    return Starlette(
        routes=[
            HEALTH,
            Route("/api/v1/chat/completions", shop.complete, methods=["POST"]),
            Route("/api/v1/models", shop.models),
            Route("/api/pricing", shop.pricing),
        ],
        exception_handlers=EXPLAIN_ERRORS,
        lifespan=lifespan,
    )


if __name__ == "__main__":
    configured = load_settings()
    serve(
        build_app(SmolLM2(find_weights()), build_verifier(configured), configured),
        port=int(sys.argv[1]),
    )
