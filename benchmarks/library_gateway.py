"""The gateway without Ray: the library's parts in one process under uvicorn.

`python benchmarks/library_gateway.py PORT`, settings from the environment. The floor that Ray
Serve's share is measured against; only the upstream answers, there is no small model.
"""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from tinybrain.api.app import build_app
from tinybrain.api.gateway import Gateway, build_gateway
from tinybrain.chat import LocalEvent, Message, Sampling
from tinybrain.config import Settings, load_settings
from tinybrain.devnet.http_server import serve
from tinybrain.errors import LocalModelError
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_gas_wallet, build_settler, build_verifier
from tinybrain.payments.ledger import Ledger, TransactionBook
from tinybrain.payments.refunding import RefundSigner
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.settlement import Settler
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters
from tinybrain.upstreams.factory import build_upstream


class _NoLocalModel:
    name = "none"

    async def generate(
        self, _messages: Sequence[Message], _sampling: Sampling
    ) -> AsyncGenerator[LocalEvent, None]:
        raise LocalModelError("Only the upstream answers here.")
        yield


def main(settings: Settings, *, port: int) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(PrometheusMeters(registry))

    @asynccontextmanager
    async def open_gateway() -> AsyncIterator[Gateway]:
        database = await Database.open(settings.ledger)
        wallet = build_gas_wallet(settings, TransactionBook(database, settings.network))
        verifier, settling = build_verifier(settings), build_settler(settings, wallet)
        rpc = Rpc(settings.rpc)
        settler = Settler(
            Ledger(database),
            settling,
            Chain(rpc, settings.token.address),
            metrics,
            RefundSigner(settings),
            wallet=wallet,
        )
        async with httpx.AsyncClient() as client:
            gateway = build_gateway(
                settings,
                database,
                verifier,
                local=_NoLocalModel(),
                upstream=build_upstream(settings, client),
                settle=settler.settle_answer,
                settle_payment=settler.settle_payment,
                metrics=metrics,
            )
            yield gateway
            await gateway.close()
        await verifier.aclose()
        await settling.aclose()
        await rpc.aclose()
        await database.close()

    async def scrape() -> str:
        return generate_latest(registry).decode()

    serve(build_app(open_gateway, scrape), port=port)


if __name__ == "__main__":
    main(load_settings().require_serving(), port=int(sys.argv[1]))
