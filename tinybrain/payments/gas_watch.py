"""Watches the gas wallet, and warns before its lack of coin stops the settlements."""

import logging
import time
from collections.abc import Callable

from tinybrain.payments.wallet import HotWallet
from tinybrain.telemetry.metrics import Levels

log = logging.getLogger(__name__)

REMIND_AFTER_S = 3600


class GasWatch:
    """Knows whether the gas is low, as of its last look."""

    def __init__(
        self,
        wallet: HotWallet,
        levels: Levels,
        *,
        enough: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.low = False
        self._wallet = wallet
        self._levels = levels
        self._enough = enough
        self._clock = clock
        self._warned_at = 0.0

    async def look(self) -> None:
        """Measure; log once when it becomes low or enough, and every hour while it is low.

        Raises:
            PaymentServiceError: The chain could not be asked.
        """
        left = (await self._wallet.gas_left()).settlements
        self._levels.gas_left(left)
        was_low, self.low = self.low, left < self._enough
        if self.low and (not was_low or self._clock() - self._warned_at >= REMIND_AFTER_S):
            self._warned_at = self._clock()
            log.warning(
                "The gas wallet %s pays for %s more settlements: send it some native coin.",
                self._wallet.address,
                left,
            )
        elif was_low and not self.low:
            log.info("The gas wallet %s has enough again.", self._wallet.address)
