"""The Starlette application: routes, errors as OpenAI error objects, CORS, request counting."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinybrain.api.chat_routes import chat_completions, native_completions
from tinybrain.api.debt_routes import pay_debts, show_debts
from tinybrain.api.discovery import discovery
from tinybrain.api.gateway import Gateway
from tinybrain.api.info_routes import Scrape, health, index, metrics, model, models, receipt, stats
from tinybrain.api.original_chat import original_chat
from tinybrain.api.session_routes import close_session, open_session
from tinybrain.api.tab_routes import close_tab, open_tab, show_tab
from tinybrain.errors import NotFound, PaymentRequired, TinyBrainError
from tinybrain.payments.wire import challenge_body, challenge_header

log = logging.getLogger(__name__)

OpenGateway = Callable[[], AbstractAsyncContextManager[Gateway]]
METHOD_NOT_ALLOWED = 405
RETRY_LATER = {429, 502, 503}


def build_app(open_gateway: OpenGateway, scrape: Scrape) -> Starlette:
    """Build the application; the gateway lives as long as it does.

    `scrape` returns the Prometheus text of the whole service.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_gateway() as gateway:
            app.state.gateway = gateway  # Serve does not hand on what a lifespan yields
            app.state.scrape = scrape
            gateway.start()
            yield

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", index),
            Route("/health", health),
            Route("/stats", stats),
            Route("/metrics", metrics),
            Route("/v1/models", models),
            Route("/v1/models/{model_id:path}", model),
            Route("/.well-known/x402", discovery),
            Route("/v1/receipts/{answer_id}", receipt),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/chat/completions", native_completions, methods=["POST"]),
            Route("/api/chat", original_chat, methods=["POST"]),
            Route("/api/session/open", open_session, methods=["POST"]),
            Route("/api/session/close", close_session, methods=["POST"]),
            Route("/v1/tabs", open_tab, methods=["POST"]),
            Route("/v1/tabs/{tab_id}", show_tab),
            Route("/v1/tabs/{tab_id}", close_tab, methods=["DELETE"]),
            Route("/v1/debts/{address}", show_debts),
            Route("/v1/debts/{address}", pay_debts, methods=["POST"]),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=[
                    "PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE", "X-Request-Id",
                    "X-TinyBrain-Receipt",
                ],
            ),
            Middleware(_Observe),
        ],
        exception_handlers={
            TinyBrainError: _tinybrain_error,
            HTTPException: _http_error,
            Exception: _unexpected_error,
        },
    )  # fmt: skip


class _Observe:
    """Counts each request by route and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The handler's name, not the path: callers must not be able to invent series.
                endpoint = scope.get("endpoint")
                route = endpoint.__name__ if endpoint else "unknown"
                scope["app"].state.gateway.metrics.request(route, message["status"])
            await send(message)

        await self._app(scope, receive, send_observed)


async def _tinybrain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TinyBrainError)  # noqa: S101  # how Starlette's types see handlers
    body = error.body()
    headers = {"Cache-Control": "no-store"}
    product = getattr(request.state, "product", None)
    if error.status in RETRY_LATER:
        headers["Retry-After"] = str(error.retry_after_s)
    else:
        headers["X-Should-Retry"] = "false"  # OpenAI's SDKs would send 409 and 402 again
    if isinstance(error, PaymentRequired) and product is not None:
        gateway: Gateway = request.app.state.gateway
        challenge = gateway.merchant.challenge(product, error.code)
        headers["PAYMENT-REQUIRED"] = challenge_header(challenge)
        openai_client = "X-Stainless-Lang" in request.headers
        body = challenge_body(challenge, error, openai_client=openai_client)
    return JSONResponse(body, status_code=error.status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # how Starlette's types see handlers
    failure = NotFound(
        f"{request.method} {request.url.path[:200]} does not exist. See GET /.",
        code="method_not_allowed" if error.status_code == METHOD_NOT_ALLOWED else None,
    )
    return JSONResponse(failure.body(), status_code=error.status_code, headers=error.headers)


async def _unexpected_error(_request: Request, error: Exception) -> Response:
    log.error("a request failed unexpectedly", exc_info=error)
    failure = TinyBrainError(
        "The service failed on this request. Nothing is charged for an answer that was not sent."
    )
    return JSONResponse(failure.body(), status_code=failure.status)
