"""What is sold and for how much: the settings' prices, by model and by route.

Knows nothing of x402; `merchant` turns a product into payment requirements.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tinybrain.config import Flow, Settings
from tinybrain.errors import ConfigError
from tinybrain.usdc import Usdc


@dataclass(frozen=True, slots=True)
class Product:
    """One thing that can be bought. `path` is its route's, `flow` when it is paid."""

    path: str
    description: str
    price: Usdc
    flow: Flow


class PriceList:
    """The price of an answer: its model's, else its route's, else the default.

    Price and flow are looked up apart, so that a model may have a price and a route a flow.

    Raises:
        ConfigError: The settings price something that is not sold.
    """

    def __init__(self, settings: Settings, *, models: Iterable[str], routes: Iterable[str]) -> None:
        sold = [*models, *routes]
        if unknown := settings.prices.keys() - set(sold):
            raise ConfigError(
                f"TINYBRAIN_PRICES names {', '.join(sorted(unknown))}, which is not sold here. "
                f"What can be priced: {', '.join(sold)}."
            )
        self._prices = settings.prices
        self._price = settings.price
        self._flow = settings.flow

    def product(self, path: str, model: str | None = None, *, choices: int = 1) -> Product:
        """One answer on a route, by a model if one is named; each of its choices costs as much."""
        offers = [self._prices[key] for key in (model, path) if key in self._prices]
        prices = [offer.price for offer in offers if offer.price is not None]
        flows = [offer.flow for offer in offers if offer.flow is not None]
        answer = "One chat answer" if choices == 1 else f"One chat answer with {choices} choices"
        return Product(
            path,
            description=f"{answer} by {model}" if model else answer,
            price=Usdc((prices[0] if prices else self._price) * choices),
            flow=flows[0] if flows else self._flow,
        )
