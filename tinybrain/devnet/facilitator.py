"""An x402 facilitator over HTTP: what Coinbase's is on Base, on the local chain.

`python -m tinybrain.devnet.facilitator PORT`; the chain and the wallet come from the settings.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from x402.schemas import SettleRequest, VerifyRequest

from tinybrain.config import Settings, load_settings
from tinybrain.devnet.http_server import EXPLAIN_ERRORS, HEALTH, read_body, serve
from tinybrain.errors import ConfigError
from tinybrain.payments.facilitators.own import OwnFacilitator
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.transactions import SignedTransaction
from tinybrain.payments.wallet import HotWallet

MAX_BODY_BYTES = 64 * 1024


class NoStore:
    """Keeps nothing: what a restart loses here, the seller settles again."""

    async def record(self, tx: SignedTransaction) -> None:
        """See TransactionStore."""

    async def unmined(self, wallet: str) -> list[SignedTransaction]:  # noqa: ARG002  # the protocol's
        """See TransactionStore."""
        return []

    async def mined(self, wallet: str, nonce: int, tx_hash: str | None) -> None:
        """See TransactionStore."""


def build_facilitator(settings: Settings) -> OwnFacilitator:
    """The own facilitator, with gas from `gas_private_key`.

    Raises:
        ConfigError: The key is not set.
    """
    if settings.gas_private_key is None:
        raise ConfigError("TINYBRAIN_GAS_PRIVATE_KEY is missing: the facilitator pays gas from it.")
    rpc = Rpc(settings.rpc)
    key = settings.gas_private_key.get_secret_value()
    wallet = HotWallet(key, rpc, settings.network, NoStore())
    return OwnFacilitator(rpc, wallet, settings.network, settings.token.address)


def build_app(facilitator: OwnFacilitator) -> Starlette:
    """The facilitator's routes: /supported, /verify, /settle, /health."""

    async def supported(_: Request) -> Response:
        return _wire(facilitator.supported())

    async def verify(request: Request) -> Response:
        order = await read_body(request, VerifyRequest, MAX_BODY_BYTES)
        return _wire(await facilitator.verify(order.payment_payload, order.payment_requirements))

    async def settle(request: Request) -> Response:
        order = await read_body(request, SettleRequest, MAX_BODY_BYTES)
        return _wire(await facilitator.settle(order.payment_payload, order.payment_requirements))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await facilitator.aclose()

    return Starlette(
        routes=[
            HEALTH,
            Route("/supported", supported),
            Route("/verify", verify, methods=["POST"]),
            Route("/settle", settle, methods=["POST"]),
        ],
        exception_handlers=EXPLAIN_ERRORS,
        lifespan=lifespan,
    )


def _wire(response: BaseModel) -> Response:
    return JSONResponse(response.model_dump(mode="json", by_alias=True, exclude_none=True))


if __name__ == "__main__":
    serve(build_app(build_facilitator(load_settings())), port=int(sys.argv[1]))
