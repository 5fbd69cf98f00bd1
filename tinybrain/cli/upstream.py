"""The larger model as a command buys it: as the service does, in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import prometheus_client

from tinybrain.chat import Upstream
from tinybrain.config import Settings
from tinybrain.errors import ConfigError
from tinybrain.payments.agent import PayingTransport
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import Limits
from tinybrain.telemetry.metrics import Metrics
from tinybrain.telemetry.prometheus import PrometheusMeters
from tinybrain.upstreams.factory import build_upstream


@asynccontextmanager
async def open_upstream(settings: Settings) -> AsyncIterator[Upstream]:
    """The upstream that is set, paid under the treasury's caps and noted in the ledger.

    Raises:
        ConfigError: Nothing is set to pay it with.
    """
    if settings.upstream_api_key is not None:
        async with httpx.AsyncClient() as client:
            yield build_upstream(settings, client)
        return
    if settings.treasury_private_key is None:
        raise ConfigError(
            "TREASURY_PRIVATE_KEY is missing: the larger model is paid with it. Set it, or set "
            "LARGE_MODEL_API_KEY for one that is not paid over x402."
        )
    database = await Database.open(settings.ledger)
    try:
        ledger = Ledger(database, limits=Limits.of(settings))
        metrics = Metrics(PrometheusMeters(prometheus_client.CollectorRegistry()))
        transport = PayingTransport(settings, ledger, metrics)
        async with httpx.AsyncClient(transport=transport) as client:
            yield build_upstream(settings, client)
    finally:
        await database.close()
