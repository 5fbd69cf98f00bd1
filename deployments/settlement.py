"""Settlement: one replica, the one hot wallet; drains the ledger's outbox."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ray import serve

from deployments.meters import ray_metrics_of_service
from tinybrain.config import Settings
from tinybrain.errors import TinyBrainError
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_settler
from tinybrain.payments.ledger import Ledger
from tinybrain.payments.settlement import Outcome, Settler

log = logging.getLogger(__name__)

DRAIN_PERIOD_S = 1.0
TIDY_PERIOD_S = 10.0


class SettlementReplica:
    """Settles what is due every second, and at once when asked."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        ledger = Ledger(await Database.open(settings.ledger))
        self._settler = Settler(
            ledger,
            build_settler(settings),
            Chain(settings.rpc, settings.token.address),
            ray_metrics_of_service(),
            answer_timeout_s=settings.answer_timeout_s,
        )
        await self._settler.recover()
        self._loops = [
            asyncio.create_task(_forever(self._settler.drain, every_s=DRAIN_PERIOD_S)),
            asyncio.create_task(_forever(self._settler.tidy, every_s=TIDY_PERIOD_S)),
        ]

    async def settle(self, answer_id: str) -> Outcome | None:
        """Settle the payment of one answer now; None if nothing was paid for it."""
        return await self._settler.settle_answer(answer_id)

    def check_health(self) -> None:
        """Replace this replica if its loop has ended."""
        if any(loop.done() for loop in self._loops):
            raise RuntimeError("a settlement loop has ended")


async def _forever(work: Callable[[], Awaitable[object]], *, every_s: float) -> None:
    while True:
        try:
            await work()
        except TinyBrainError as error:  # the ledger is locked or its disk full: keep trying
            log.warning("settlement waits: %s", error.message)
        await asyncio.sleep(every_s)


Settlement = serve.deployment(name="Settlement", num_replicas=1, health_check_period_s=5)(
    SettlementReplica
)
