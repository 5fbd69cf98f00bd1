"""The service without Ray: the library's parts in one process under uvicorn.

`python benchmarks/library_gateway.py PORT`, settings from the environment. It admits, answers,
settles and tidies as the deployments do together; only the upstream answers, there is no small
model.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from tinybrain.api.app import build_app
from tinybrain.api.assembly import build_gateway
from tinybrain.api.gateway import Gateway
from tinybrain.chat import LocalEvent, Message, Sampling
from tinybrain.config import Settings, load_settings
from tinybrain.devnet.http_server import serve
from tinybrain.errors import LocalModelError
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_gas_wallet, build_settler, build_verifier
from tinybrain.payments.housekeeping import Housekeeping
from tinybrain.payments.ledger import Ledger, TransactionBook
from tinybrain.payments.refunding import RefundSigner, can_refund
from tinybrain.payments.reorganisations import Reorganisations
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.settlement import Settler
from tinybrain.telemetry.metrics import Levels, Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters
from tinybrain.upstreams.factory import build_upstream

DRAIN_PERIOD_S = 1.0  # the periods are those of deployments/settlement.py
LOOK_PERIOD_S = 3.0
TIDY_PERIOD_S = 10.0


class _NoLocalModel:
    name = "none"

    async def generate(
        self, _messages: Sequence[Message], _sampling: Sampling
    ) -> AsyncGenerator[LocalEvent, None]:
        raise LocalModelError("Only the upstream answers here.")
        yield


async def _gas_is_fine() -> bool:
    return False


@asynccontextmanager
async def open_gateway(settings: Settings, meters: PrometheusMeters) -> AsyncIterator[Gateway]:
    """The gateway, and behind it everything that the Settlement deployment does."""
    metrics = Metrics(meters)
    async with AsyncExitStack() as stack:
        database = await Database.open(settings.ledger)
        stack.push_async_callback(database.close)
        verifier = build_verifier(settings)
        stack.push_async_callback(verifier.aclose)
        wallet = build_gas_wallet(settings, TransactionBook(database, settings.network))
        collector = build_settler(settings, wallet)
        stack.push_async_callback(collector.aclose)
        rpc = Rpc(settings.rpc)
        stack.push_async_callback(rpc.aclose)
        chain, ledger = Chain(rpc, settings.token.address), Ledger(database)
        settler = Settler(
            ledger,
            collector,
            chain,
            metrics,
            RefundSigner(settings),
            wallet=wallet,
            batch_size=settings.batch_size,
        )
        client = await stack.enter_async_context(httpx.AsyncClient())
        gateway = build_gateway(
            settings,
            database,
            verifier,
            local=_NoLocalModel(),
            upstream=build_upstream(settings, client),
            settle=settler.settle_answer,
            settle_payment=settler.settle_payment,
            gas_low=_gas_is_fine,
            metrics=metrics,
        )
        stack.push_async_callback(gateway.close)
        housekeeping = Housekeeping(settings, database, ledger, chain, metrics, Levels(meters))
        reorganisations = Reorganisations(
            ledger, chain, metrics, confirmations=settings.confirmations
        )
        _repeat(stack, settler.start, every_s=DRAIN_PERIOD_S)
        _repeat(stack, reorganisations.look, every_s=LOOK_PERIOD_S)
        _repeat(stack, housekeeping.run, every_s=TIDY_PERIOD_S)
        yield gateway


def _repeat(
    stack: AsyncExitStack, work: Callable[[], Awaitable[object]], *, every_s: float
) -> None:
    async def forever() -> None:
        while True:
            await work()
            await asyncio.sleep(every_s)

    stack.callback(asyncio.create_task(forever()).cancel)


def main(settings: Settings, *, port: int) -> None:
    registry = CollectorRegistry()
    meters = PrometheusMeters(registry)
    settings = settings.model_copy(update={"refunds": can_refund(settings)})

    async def scrape() -> str:
        return generate_latest(registry).decode()

    serve(build_app(lambda: open_gateway(settings, meters), scrape), port=port)


if __name__ == "__main__":
    main(load_settings().require_serving(), port=int(sys.argv[1]))
