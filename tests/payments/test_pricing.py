"""Which price and flow an answer has."""

import pytest

from tinybrain.config import load_settings
from tinybrain.errors import ConfigError
from tinybrain.payments.pricing import PriceList

CHAT, NATIVE = "/v1/chat/completions", "/chat/completions"


def price_list(prices=None, **settings):
    settings = load_settings(prices=prices or {}, **settings)
    return PriceList(settings, models=["tinybrain", "tinychat"], routes=[CHAT, NATIVE])


def test_without_prices_everything_has_the_default_price_and_flow():
    product = price_list(price="0.02", flow="upfront").product(CHAT, "tinychat")
    assert (product.price, product.flow, product.path) == (20_000, "upfront", CHAT)


def test_a_models_price_wins_over_its_routes():
    prices = price_list({"tinychat": {"price": "0.001"}, NATIVE: {"price": "0.005"}})
    assert prices.product(NATIVE, "tinychat").price == 1_000
    assert prices.product(NATIVE).price == 5_000
    assert prices.product(CHAT, "tinybrain").price == 10_000


def test_price_and_flow_are_looked_up_apart():
    prices = price_list({"tinychat": {"price": "0.001"}, NATIVE: {"flow": "upfront"}})
    product = prices.product(NATIVE, "tinychat")
    assert (product.price, product.flow) == (1_000, "upfront")


def test_a_price_of_nothing_is_a_price():
    assert price_list({"tinychat": {"price": "0"}}).product(CHAT, "tinychat").price == 0


def test_every_choice_costs_as_much_as_one():
    product = price_list({"tinychat": {"price": "0.001"}}).product(CHAT, "tinychat", choices=3)
    assert (product.price, product.description) == (
        3_000,
        "One chat answer with 3 choices by tinychat",
    )


def test_a_price_of_something_not_sold_is_refused_at_start():
    with pytest.raises(ConfigError) as caught:
        price_list({"tinychta": {"price": "0.001"}})
    assert "tinychta" in caught.value.message
    assert "tinychat, /v1/chat/completions" in caught.value.message
