"""How far P(wrong) in service has moved from what it was on the calibration questions."""

import math
from bisect import bisect_left
from collections.abc import Sequence

LIMIT = 0.25
"""Above it the two are taken to differ. Source: Siddiqi, Credit Risk Scorecards, 2006."""

BINS = 10
UNSEEN = 0.5
"""Added to each count, so that an empty bin counts as few and not as infinitely many less."""


class Reference:
    """P(wrong) of the calibration questions, by deciles.

    An infinite one, of a question that was escalated without it, has a bin of its own.
    """

    def __init__(self, p_wrong: Sequence[float]) -> None:
        finite = sorted(p for p in p_wrong if p < math.inf)
        self._cuts = sorted({finite[len(finite) * i // BINS] for i in range(1, BINS)})
        self._shares = self._binned(p_wrong)

    def stability(self, p_wrong: Sequence[float]) -> float:
        """The population stability index: 0 where nothing has moved."""
        pairs = zip(self._binned(p_wrong), self._shares, strict=True)
        return sum((now - then) * math.log(now / then) for now, then in pairs)

    def _binned(self, p_wrong: Sequence[float]) -> list[float]:
        counts = [UNSEEN] * (len(self._cuts) + 2)
        for p in p_wrong:
            counts[-1 if p == math.inf else bisect_left(self._cuts, p)] += 1
        total = sum(counts)
        return [count / total for count in counts]
