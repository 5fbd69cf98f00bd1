"""What machines that look for something to buy are told, and the prices of the models."""

from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from x402.extensions.bazaar.facilitator_client import _parse_list_response
from x402.schemas import PaymentRequirements

from tinybrain.api.assembly import build_prices
from tinybrain.api.discovery import CHAT_PATH, NATIVE_PATH, ORIGINAL_PATH, TABS_PATH, discovery
from tinybrain.api.info_routes import index, models
from tinybrain.config import load_settings
from tinybrain.payments.merchant import Merchant

URL = "https://tinybrain.example"
SOLD = (CHAT_PATH, NATIVE_PATH, ORIGINAL_PATH, TABS_PATH)


@pytest.fixture
def refunds():
    return True


@pytest.fixture
def get(refunds):
    """Asks the routes, with TinyChat sold cheaper and settled first."""
    settings = load_settings(
        network="eip155:84532",
        pay_to="0x" + "c" * 40,
        public_url=URL,
        refunds=refunds,
        prices={"tinychat": {"price": "0.001", "flow": "upfront"}},
    )
    app = Starlette(
        routes=[
            Route("/", index),
            Route("/.well-known/x402", discovery),
            Route("/v1/models", models),
        ]
    )
    app.state.gateway = SimpleNamespace(
        settings=settings,
        merchant=Merchant(settings, facilitator=None),
        prices=build_prices(settings),
    )

    async def ask(path):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as http:
            return (await http.get(path)).raise_for_status().json()

    return ask


async def test_the_urls_of_what_is_sold_are_listed_as_scanners_read_them(get):
    told = await get("/.well-known/x402")
    assert told["version"] == 1
    assert told["resources"] == [f"{URL}{path}" for path in SOLD]


async def test_each_item_has_terms_that_a_client_can_sign(get):
    told = await get("/.well-known/x402")
    for item in told["items"]:
        (offer,) = (PaymentRequirements.model_validate(terms) for terms in item["accepts"])
        assert (offer.scheme, offer.network) == ("exact", "eip155:84532")
        assert (item["method"], item["mimeType"]) == ("POST", "application/json")
        assert item["description"]


async def test_the_document_reads_as_a_facilitators_listing(get):
    for item in _parse_list_response(await get("/.well-known/x402")).items:
        assert (item.type, item.x402_version) == ("http", 2)
        assert item.resource.startswith(URL)
        assert item.accepts


async def test_each_model_has_its_own_price_and_flow(get):
    items = (await get("/.well-known/x402"))["items"]
    terms = {
        (item["resource"].removeprefix(URL), item["metadata"]["model"]): (
            item["accepts"][0]["amount"],
            item["accepts"][0]["extra"].get("paymentFlow"),
        )
        for item in items
    }
    assert terms[CHAT_PATH, "tinybrain"] == ("10000", None)
    assert terms[CHAT_PATH, "tinychat"] == terms[NATIVE_PATH, "tinychat"] == ("1000", "upfront")
    assert terms[TABS_PATH, None] == ("100000", "upfront")


async def test_the_models_are_listed_with_their_own_price(get):
    pricing = {card["id"]: card["pricing"] for card in (await get("/v1/models"))["data"]}
    assert pricing["tinychat"] == {
        "request": "0.001",
        "amount": "1000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "network": "eip155:84532",
        "flow": "upfront",
    }
    assert (pricing["tinybrain"]["request"], pricing["tinybrain"]["flow"]) == (
        "0.01",
        "authorization",
    )


async def test_the_index_names_the_price_and_the_discovery_document(get):
    told = await get("/")
    assert told["price"] == "$0.01"
    assert "/.well-known/x402" in told["see"]


@pytest.mark.parametrize("refunds", [False])
async def test_tabs_are_not_listed_where_they_are_not_sold(get):
    told = await get("/.well-known/x402")
    assert f"{URL}{TABS_PATH}" not in told["resources"]
