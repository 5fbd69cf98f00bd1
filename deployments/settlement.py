"""Settlement: one replica, the one hot wallet; settles, refunds and tidies."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ray import serve

from deployments.meters import ray_levels_of_service, ray_metrics_of_service
from tinybrain.config import Settings
from tinybrain.errors import TinyBrainError
from tinybrain.payments.chain import Chain
from tinybrain.payments.database import Database
from tinybrain.payments.facilitators import build_gas_wallet, build_settler
from tinybrain.payments.gas_watch import GasWatch
from tinybrain.payments.housekeeping import Housekeeping
from tinybrain.payments.ledger import Ledger, TransactionBook
from tinybrain.payments.refunding import RefundSigner
from tinybrain.payments.reorganisations import Reorganisations
from tinybrain.payments.rpc import Rpc
from tinybrain.payments.settlement import Outcome, Settler

log = logging.getLogger(__name__)

DRAIN_PERIOD_S = 1.0
LOOK_PERIOD_S = 3.0  # for reorganisations
TIDY_PERIOD_S = 10.0


class SettlementReplica:
    """Settles what is due every second, and at once when asked."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        database = await Database.open(settings.ledger)
        ledger = Ledger(database)
        chain = Chain(Rpc(settings.rpc), settings.token.address)
        metrics = ray_metrics_of_service()
        levels = ray_levels_of_service()
        store = TransactionBook(database, settings.network)
        wallet = build_gas_wallet(settings, store)
        self._gas = (
            GasWatch(wallet, levels, enough=settings.low_gas_settlements) if wallet else None
        )
        self._settler = Settler(
            ledger,
            build_settler(settings, wallet, on_failure=metrics.facilitator_failure),
            chain,
            metrics,
            RefundSigner(settings),
            wallet=wallet,
            batch_size=settings.batch_size,
        )
        housekeeping = Housekeeping(
            settings, database, ledger, chain, metrics, levels, gas=self._gas
        )
        reorganisations = Reorganisations(
            ledger, chain, metrics, confirmations=settings.confirmations
        )
        await self._settler.recover()
        self._loops = [
            asyncio.create_task(_forever(work, every_s=period_s))
            for work, period_s in (
                (self._settler.start, DRAIN_PERIOD_S),
                (reorganisations.look, LOOK_PERIOD_S),
                (housekeeping.run, TIDY_PERIOD_S),
            )
        ]

    async def settle(self, answer_id: str) -> Outcome | None:
        """Settle the payment of one answer now; None if nothing was paid for it."""
        return await self._settler.settle_answer(answer_id)

    async def settle_payment(self, payment_id: int) -> Outcome:
        """Settle one payment now, of a tab for example.

        Raises:
            NotFound: There is none.
        """
        return await self._settler.settle_payment(payment_id)

    def gas_low(self) -> bool:
        """Whether the gas wallet pays for few settlements only; False if others pay the gas."""
        return self._gas is not None and self._gas.low

    def check_health(self) -> None:
        """Replace this replica if one of its loops has ended."""
        if any(loop.done() for loop in self._loops):
            raise RuntimeError("a settlement loop has ended")


async def _forever(work: Callable[[], Awaitable[object]], *, every_s: float) -> None:
    while True:
        try:
            await work()
        except TinyBrainError as error:  # ledger or chain cannot be asked: keep trying
            log.warning("settlement waits: %s", error.message)
        await asyncio.sleep(every_s)


Settlement = serve.deployment(name="Settlement", num_replicas=1, health_check_period_s=5)(
    SettlementReplica
)
