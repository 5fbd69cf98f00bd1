"""How many audits may be bought a day where no cost is told, as with an API key. Knows no money."""

import time
from collections import deque
from collections.abc import Callable

from tinybrain.errors import BudgetExceeded

DAY_S = 86_400.0


class Allowance:
    """At most `most` in any 24 hours, of one process and as long as it lives; None: any number."""

    def __init__(self, most: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._taken: deque[float] = deque()

    def take(self) -> None:
        """Count one more.

        Raises:
            BudgetExceeded: There were that many already.
        """
        if self._most is None:
            return
        now = self._clock()
        while self._taken and self._taken[0] <= now - DAY_S:
            self._taken.popleft()
        if len(self._taken) >= self._most:
            raise BudgetExceeded(
                f"{self._most} audits in 24 hours are all that TINYBRAIN_AUDIT_BUDGET_PER_DAY "
                "allows at TINYBRAIN_MAX_COST_PER_CALL each."
            )
        self._taken.append(now)
