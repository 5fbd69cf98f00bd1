"""What is sold here, for machines that look for something to buy: GET /.well-known/x402.

`resources` is the list of URLs that x402scan reads; `items` has the terms beside each, one item
for each model, in the shape in which facilitators list what they know (Bazaar).
Source: x402scan, Discovery and Registration Spec; x402 specification 2, discovery.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinybrain.api.gateway import Gateway
from tinybrain.api.openai import AUTO_MODEL, LOCAL_MODEL, model_modes
from tinybrain.api.tab_office import TABS_PATH
from tinybrain.config import Settings
from tinybrain.payments.merchant import Merchant
from tinybrain.payments.pricing import PriceList, Product
from tinybrain.usdc import format_usdc

CHAT_PATH = "/v1/chat/completions"
NATIVE_PATH = "/chat/completions"
ORIGINAL_PATH = "/api/chat"
INSTRUCTIONS = (
    "POST a question in the format of OpenAI's chat completions. The first answer is 402 with the "
    "price: sign it with any x402 client and send the same request again. With a prepaid tab any "
    "OpenAI client can ask; its API key is the tab's token."
)


async def discovery(request: Request) -> Response:
    """GET /.well-known/x402: what is sold and for how much."""
    gateway: Gateway = request.app.state.gateway
    return JSONResponse(manifest(gateway.settings, gateway.merchant, gateway.prices))


def manifest(settings: Settings, merchant: Merchant, prices: PriceList) -> dict[str, Any]:
    """The discovery document. URLs are absolute, amounts in `accepts` atomic USDC."""
    url = settings.public_url
    items = [
        {
            "resource": f"{url}{product.path}",
            "type": "http",
            "method": "POST",
            "x402Version": 2,
            "description": product.description,
            "mimeType": "application/json",
            "accepts": [merchant.requirements(product).model_dump(by_alias=True)],
            "metadata": {"model": model, "price": format_usdc(product.price)},
        }
        for product, model in _sold(settings, prices)
    ]
    return {
        "version": 1,
        "x402Version": 2,
        "resources": list(dict.fromkeys(item["resource"] for item in items)),
        "items": items,
        "instructions": INSTRUCTIONS,
        "documentation": f"{url}/",
        "models": f"{url}/v1/models",
    }


def _sold(settings: Settings, prices: PriceList) -> list[tuple[Product, str | None]]:
    tab = Product(
        TABS_PATH,
        f"A prepaid tab; the smallest deposit is {format_usdc(settings.tab_min_deposit)}, the "
        f"largest {format_usdc(settings.tab_max_deposit)}",
        settings.tab_min_deposit,
        "upfront",
    )
    sold: list[tuple[Product, str | None]] = [
        (prices.product(CHAT_PATH, model), model) for model in model_modes(settings)
    ]
    sold.append((prices.product(NATIVE_PATH, LOCAL_MODEL), LOCAL_MODEL))
    sold.append((prices.product(ORIGINAL_PATH, AUTO_MODEL), AUTO_MODEL))
    return [*sold, (tab, None)] if settings.refunds else sold
