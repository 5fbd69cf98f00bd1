"""PaymentIngress: the HTTP side. Joins the gateway's parts to the other deployments."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from deployments.escalation import RemoteUpstream
from deployments.meters import ray_metrics_of_service, scrape_cluster
from deployments.tinychat import RemoteTinyChat
from tinybrain.api.app import build_app
from tinybrain.api.assembly import build_gateway
from tinybrain.api.gateway import Gateway
from tinybrain.chat import LocalModel
from tinybrain.config import Settings
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_verifier
from tinybrain.payments.settlement import Outcome
from tinybrain.routing.small_model import open_small_model


class _PaymentIngress:
    """Builds the Starlette app inside the replica; holds no private key."""

    def __init__(
        self,
        settings: Settings,
        tinychat: DeploymentHandle[Any] | None,
        escalation: DeploymentHandle[Any],
        settlement: DeploymentHandle[Any],
    ) -> None:
        self._settings = settings
        self._tinychat = tinychat
        self._escalation = escalation
        self._settlement = settlement

    def __serve_build_asgi_app__(self) -> Starlette:
        return build_app(self._open_gateway, scrape_cluster)

    @asynccontextmanager
    async def _open_gateway(self) -> AsyncIterator[Gateway]:
        settings = self._settings
        database = await Database.open(settings.ledger)
        metrics = ray_metrics_of_service()
        verifier = build_verifier(settings, on_failure=metrics.facilitator_failure)
        async with self._open_small_model() as local:
            gateway = build_gateway(
                settings,
                database,
                verifier,
                local=local,
                upstream=RemoteUpstream(self._escalation, settings.upstream_model),
                settle=self._settle,
                settle_payment=self._settle_payment,
                gas_low=self._gas_low,
                metrics=metrics,
            )
            try:
                yield gateway
            finally:
                await gateway.close()
                await verifier.aclose()
                await database.close()

    @asynccontextmanager
    async def _open_small_model(self) -> AsyncIterator[LocalModel]:
        """TinyChat's deployment; where none is bound, the small model behind an API."""
        if self._tinychat is not None:
            yield RemoteTinyChat(self._tinychat)
            return
        async with open_small_model(self._settings) as model:
            yield model

    async def _settle(self, answer_id: str) -> Outcome | None:
        outcome: Outcome | None = await self._settlement.settle.remote(answer_id)
        return outcome

    async def _settle_payment(self, payment_id: int) -> Outcome | None:
        outcome: Outcome | None = await self._settlement.settle_payment.remote(payment_id)
        return outcome

    async def _gas_low(self) -> bool:
        low: bool = await self._settlement.gas_low.remote()
        return low


PaymentIngress = serve.deployment(name="PaymentIngress", health_check_period_s=5)(
    serve.ingress()(_PaymentIngress)
)
