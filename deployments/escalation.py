"""Escalation: buys answers from the larger model, and is the only holder of the treasury's key."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.meters import ray_metrics_of_service
from deployments.streams import batches, flatten
from tinybrain.chat import Message, Sampling, UpstreamEvent
from tinybrain.config import Settings
from tinybrain.errors import UpstreamError
from tinybrain.payments.agent import PayingTransport
from tinybrain.payments.database import Database
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.records import Limits
from tinybrain.upstreams.factory import build_upstream


class EscalationReplica:
    """Holds the upstream's client; every request is a stream."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        ledger = Ledger(await Database.open(settings.ledger), limits=Limits.of(settings))
        transport = (
            PayingTransport(settings, ledger, ray_metrics_of_service())
            if settings.upstream_api_key is None
            else None
        )
        self._upstream = build_upstream(settings, httpx.AsyncClient(transport=transport))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, answer_id: str
    ) -> AsyncGenerator[list[UpstreamEvent], None]:
        """Upstream.generate, in batches."""
        events = self._upstream.generate(messages, sampling, answer_id=answer_id)
        async for batch in batches(events):
            yield batch


Escalation = serve.deployment(name="Escalation", health_check_period_s=5)(EscalationReplica)


class RemoteUpstream:
    """The Upstream protocol over a handle. `name` is the model's."""

    def __init__(self, handle: DeploymentHandle[Any], name: str) -> None:
        self.name = name
        self._generate = handle.options(stream=True).generate

    def generate(
        self, messages: Sequence[Message], sampling: Sampling, *, answer_id: str
    ) -> AsyncGenerator[UpstreamEvent, None]:
        """See Upstream."""
        response = self._generate.remote(messages, sampling, answer_id)
        return flatten(response, UpstreamError, "The larger model's client")
