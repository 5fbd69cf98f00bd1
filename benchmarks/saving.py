"""What a cascade costs for how many right answers, beside escalating always or at random.

The larger model is taken to be right with a stated probability, whatever is asked.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean

from cases import Case
from doubts import Scores, heeding_declining
from latency import Row
from ranking import Interval

from tinybrain.routing.calibration.evaluation import bootstrap
from tinybrain.usdc import ATOMIC_PER_DOLLAR, Usdc

LARGER_RIGHT = 0.95
SHARES = tuple(percent / 100 for percent in range(0, 101, 10))
REPEATS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality, the share of right answers, by the number of cases escalated, the doubtful first."""

    qualities: list[float]

    @classmethod
    def of(cls, scores: Sequence[float], right: Sequence[bool]) -> "Curve":
        """Ties are escalated in random order."""
        n = len(right)
        shuffled = random.Random(n).sample(range(n), n)
        ordered = sorted(shuffled, key=lambda i: scores[i], reverse=True)
        gained = accumulate((LARGER_RIGHT - right[i] for i in ordered), initial=sum(right))
        return cls([quality / n for quality in gained])

    def at(self, share: float) -> float:
        return self.qualities[round(share * (len(self.qualities) - 1))]

    @property
    def apgr(self) -> float:
        """The average performance gap recovered: 0.5 at random. Source: Ong et al., RouteLLM, 2024.

        Not a number where the larger model is no better.
        """
        none, everything = self.qualities[0], self.qualities[-1]
        if everything <= none:
            return float("nan")
        return (fmean(self.qualities) - none) / (everything - none)

    def least_for(self, gap: float) -> float:
        """The least share escalated that recovers this share of the performance gap."""
        none, everything = self.qualities[0], self.qualities[-1]
        wanted = none + gap * (everything - none) - 1e-9
        least = next(i for i, quality in enumerate(self.qualities) if quality >= wanted)
        return least / (len(self.qualities) - 1)


class Saving:
    """Scores of the same cases as curves; the figures of several seeds are averaged."""

    def __init__(
        self, cases: Sequence[Case], scores: dict[str, Sequence[Scores]], *, seed: int
    ) -> None:
        self._right = [case.right for case in cases]
        self._seed = seed
        self._scores = {
            name: [heeding_declining(one, cases) for one in seeds] for name, seeds in scores.items()
        } | {"ideal": [[float(not case.right) for case in cases]]}
        self._curves = {
            name: [Curve.of(one, self._right) for one in seeds]
            for name, seeds in self._scores.items()
        }

    def curves(self) -> list[Row]:
        """Quality by the share escalated."""
        return [
            {"escalated": f"{share:.0%}"}
            | {
                name: f"{fmean(curve.at(share) for curve in curves):.3f}"
                for name, curves in self._curves.items()
            }
            for share in SHARES
        ]

    def costs(self, price: Usdc) -> list[Row]:
        """What is escalated, and spent on 1,000 questions, for the quality of always escalating."""
        return [self._cost_row(name, price) for name in self._curves]

    def apgr(self, name: str) -> Interval:
        return self._bootstrapped(lambda rows: self._apgr(name, rows))

    def lead(self, name: str, other: str) -> Interval:
        """By how much more of the gap one score recovers than another."""
        return self._bootstrapped(lambda rows: self._apgr(name, rows) - self._apgr(other, rows))

    def _apgr(self, name: str, rows: Sequence[int]) -> float:
        right = [self._right[i] for i in rows]
        return fmean(Curve.of([one[i] for i in rows], right).apgr for one in self._scores[name])

    def _bootstrapped(self, statistic: Callable[[Sequence[int]], float]) -> Interval:
        everything = range(len(self._right))
        interval = bootstrap(statistic, everything, seed=self._seed, repeats=REPEATS)
        return Interval(statistic(everything), *interval)

    def _cost_row(self, name: str, price: Usdc) -> Row:
        row: Row = {"escalated by": name, "APGR": str(self.apgr(name))}
        for column, gap in (("the same quality", 1.0), ("95 % of the gap", 0.95)):
            share = fmean(curve.least_for(gap) for curve in self._curves[name])
            dollars = share * 1000 * price / ATOMIC_PER_DOLLAR
            row[column] = f"{share:.1%}, ${dollars:.2f}"
        return row
