"""The routes that tell: health, statistics, metrics, models, receipts. All are free."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

import tinybrain
from tinybrain.api.discovery import CHAT_PATH
from tinybrain.api.gateway import Gateway
from tinybrain.api.openai import AUTO_MODEL, model_modes
from tinybrain.errors import ModelNotFound, NotFound
from tinybrain.usdc import format_usdc, plain_usdc

Scrape = Callable[[], Awaitable[str]]
"""Returns the metrics of the whole service in Prometheus' text format."""

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
ANSWER_ID = re.compile(r"ans_[0-9a-f]{32}")
DAY_MS = 86_400_000
SETTLEMENT_WAIT_S = 1.0
MODEL_NOTES = {
    "auto": "{small} answers what it knows; the rest is bought from the larger model.",
    "local": "{small} alone, whatever its confidence.",
    "upstream": "The larger model alone.",
}


async def index(request: Request) -> Response:
    """GET /: what this is and where things are."""
    gateway: Gateway = request.app.state.gateway
    return JSONResponse(
        {
            "name": "TinyBrain",
            "version": tinybrain.__version__,
            "price": format_usdc(gateway.prices.product(CHAT_PATH, AUTO_MODEL).price),
            "ask": f"POST {CHAT_PATH}",
            "see": ["/v1/models", "/.well-known/x402", "/health", "/stats", "/metrics"],
        }
    )


async def health(request: Request) -> Response:
    """GET /health: 200 while requests can be answered, 503 while the ledger cannot be read.

    `settlement` warns of what will stop the money, not the answers: "ok", "gas_low" or "unknown".
    """
    gateway: Gateway = request.app.state.gateway
    await gateway.ledger.ping()
    return JSONResponse(
        {
            "status": "ok",
            "ready": True,
            "version": tinybrain.__version__,
            "network": gateway.settings.network,
            "payTo": gateway.settings.pay_to,
            "upstream": gateway.settings.upstream_model,
            "settlement": await _settlement(gateway),
        }
    )


async def _settlement(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(SETTLEMENT_WAIT_S):
            return "gas_low" if await gateway.gas_low() else "ok"
    except Exception:  # noqa: BLE001  # a restart of Settlement is no reason to take us out
        return "unknown"


async def stats(request: Request) -> Response:
    """GET /stats: the last 24 hours from the ledger, latencies in milliseconds.

    `routing` is what this replica last saw of the gate; empty where no router is.
    """
    gateway: Gateway = request.app.state.gateway
    since = gateway.ledger.now_ms() - DAY_MS
    routing = gateway.online.standing if gateway.online else {}
    told = await gateway.receipts.statistics(since_ms=since)
    return JSONResponse(told | {"routing": routing})


async def metrics(request: Request) -> Response:
    """GET /metrics: Prometheus' text format, every replica's numbers."""
    scrape: Scrape = request.app.state.scrape
    return PlainTextResponse(await scrape(), media_type=PROMETHEUS_TEXT)


async def models(request: Request) -> Response:
    """GET /v1/models: what is sold, with the price before paying."""
    gateway: Gateway = request.app.state.gateway
    return JSONResponse(
        {
            "object": "list",
            "data": [_card(gateway, name) for name in model_modes(gateway.settings)],
        }
    )


async def model(request: Request) -> Response:
    """GET /v1/models/{id}: one of them; of those in which TinyChat answers also its model card."""
    gateway: Gateway = request.app.state.gateway
    name = request.path_params["model_id"]
    if name not in model_modes(gateway.settings):
        raise ModelNotFound(f"The model {name[:100]!r} is not sold here. See GET /v1/models.")
    is_bought = model_modes(gateway.settings)[name] == "upstream"
    own = {} if is_bought else gateway.model_card.fields()
    return JSONResponse(_card(gateway, name) | own)


async def receipt(request: Request) -> Response:
    """GET /v1/receipts/{id}: what an answer cost, who wrote it, and the transaction once mined.

    The id is known only to who got the answer.
    """
    gateway: Gateway = request.app.state.gateway
    answer_id = request.path_params["answer_id"]
    found = await gateway.receipts.receipt(answer_id) if ANSWER_ID.fullmatch(answer_id) else None
    if found is None:
        raise NotFound("There is no such receipt. Its id is in the answer's x_tinybrain.receipt.")
    return JSONResponse(found, headers={"Cache-Control": "private, no-store"})


def _card(gateway: Gateway, name: str) -> dict[str, Any]:
    product = gateway.prices.product(CHAT_PATH, name)
    mode = model_modes(gateway.settings)[name]
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "tinybrain" if mode != "upstream" else name.partition("/")[0],
        "description": MODEL_NOTES[mode].format(
            small=gateway.settings.small_model_name or "TinyChat"
        ),
        "pricing": {
            "request": plain_usdc(product.price),
            "amount": str(product.price),
            "asset": gateway.settings.token.address,
            "network": gateway.settings.network,
            "flow": product.flow,
        },
        "default": name == AUTO_MODEL,
    }
