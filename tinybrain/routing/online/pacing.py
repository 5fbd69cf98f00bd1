"""A budget a day as a threshold: where money is short, it goes to the questions most in doubt.

Without it the first questions of a day would get everything and the last ones nothing. Knows
nothing of how P(wrong) came about.
"""

import math
from collections.abc import Sequence

from tinybrain.payments.records import Spending

DAY_S = 86_400.0
SHORTEST_S = 3_600.0
"""A service that is younger is taken for so old: a busy minute says nothing of a day."""


def affordable(spending: Spending, budget: int) -> float | None:
    """The share of the judged answers that may be bought for doubt within `budget` a day.

    What is bought for other reasons comes first, at the pace it has. None where that leaves money,
    and what it buys is unknown or free.
    """
    days = max(spending.seconds, SHORTEST_S) / DAY_S
    for_doubt = max(0.0, budget - spending.others / days)
    if not for_doubt:
        return 0.0
    if not spending.doubted or not spending.judged:
        return None
    cost = spending.doubted / spending.doubts
    return for_doubt / (cost * spending.judged / days)


def lowest_threshold(p_wrong: Sequence[float], share: float) -> float:
    """The lowest with at most this share of the answers above it.

    An infinite P(wrong) was decided otherwise, and is not counted as above.
    """
    ranked = sorted((p for p in p_wrong if p < math.inf), reverse=True)
    most = math.floor(share * len(p_wrong))
    return ranked[most] if most < len(ranked) else -math.inf
