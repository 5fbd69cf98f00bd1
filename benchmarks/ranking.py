"""How well scores of doubt rank wrong answers above right ones, with bootstrap intervals.

A score that is fitted has one list of numbers for each seed it was fitted with; its figure is the
mean over the seeds. Intervals are of the questions drawn, at 95 %.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from cases import Case
from doubts import Scores, heeding_declining
from latency import Row

from tinybrain.routing.calibration.evaluation import (
    aurc,
    auroc,
    auroc_within,
    bootstrap,
    ece,
    risk_coverage,
)

REPEATS = 200


class Interval(NamedTuple):
    """A figure and where it lies."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Ranked(NamedTuple):
    """One score's figures, `heeding` that what the model declined is wrong or not."""

    alone: Interval
    within: Interval | None
    heeding: Interval
    heeding_within: Interval | None


class Ranking:
    """Scores of the same cases."""

    def __init__(
        self, cases: Sequence[Case], scores: Mapping[str, Sequence[Scores]], *, seed: int
    ) -> None:
        self._wrong = [not case.right for case in cases]
        self._families = [case.family for case in cases]
        self._seed = seed
        self._scores = scores
        self._heeding = {
            name: [heeding_declining(one, cases) for one in seeds] for name, seeds in scores.items()
        }

    @property
    def names(self) -> list[str]:
        return list(self._scores)

    def of(self, name: str) -> Ranked:
        alone, heeding = self._scores[name], self._heeding[name]
        return Ranked(
            self._pooled(alone),
            self._within(alone),
            self._pooled(heeding),
            self._within(heeding),
        )

    def lead(self, name: str, other: str) -> Interval:
        """By how much one score ranks better than another, both heeding what was declined."""
        ours, theirs = self._heeding[name], self._heeding[other]

        def difference(rows: Sequence[int]) -> float:
            return self._auroc(ours, rows) - self._auroc(theirs, rows)

        return self._bootstrapped(difference)

    def of_seeds(self, name: str) -> list[float]:
        """The figure of each seed by itself."""
        everything = range(len(self._wrong))
        return [self._auroc([scores], everything) for scores in self._heeding[name]]

    def _pooled(self, seeds: Sequence[Scores]) -> Interval:
        return self._bootstrapped(lambda rows: self._auroc(seeds, rows))

    def _within(self, seeds: Sequence[Scores]) -> Interval | None:
        """None where no family has enough right and wrong answers."""
        if auroc_within(seeds[0], self._wrong, self._families) is None:
            return None
        return self._bootstrapped(lambda rows: self._auroc_within(seeds, rows))

    def _bootstrapped(self, statistic: Callable[[Sequence[int]], float]) -> Interval:
        everything = list(range(len(self._wrong)))
        interval = bootstrap(statistic, everything, seed=self._seed, repeats=REPEATS)
        return Interval(statistic(everything), *interval)

    def _auroc(self, seeds: Sequence[Scores], rows: Sequence[int]) -> float:
        wrong = [self._wrong[i] for i in rows]
        return fmean(_or_chance(auroc([scores[i] for i in rows], wrong)) for scores in seeds)

    def _auroc_within(self, seeds: Sequence[Scores], rows: Sequence[int]) -> float:
        wrong = [self._wrong[i] for i in rows]
        families = [self._families[i] for i in rows]
        return fmean(
            _or_chance(auroc_within([scores[i] for i in rows], wrong, families)) for scores in seeds
        )


def _or_chance(found: float | None) -> float:
    """A draw in which all are right, or all wrong, ranks nothing."""
    return 0.5 if found is None else found


def ranked_row(name: str, ranked: Ranked) -> Row:
    return {
        "score": name,
        "AUROC": str(ranked.alone),
        "within a family": str(ranked.within or "-"),
        "with declining": str(ranked.heeding),
        "with declining, within": str(ranked.heeding_within or "-"),
    }


def calibration_row(
    name: str, cases: Sequence[Case], seeds: Sequence[Scores], limits: Sequence[float]
) -> Row:
    """How near a probability is to what happens, of what was not declined, and the mean risk.

    Beside them what could be kept at each error, were the threshold chosen on these very cases.
    """
    wrong = [not case.right for case in cases]
    answered = [i for i, case in enumerate(cases) if not case.declined]
    answered_wrong = [wrong[i] for i in answered]
    heeding = [heeding_declining(one, cases) for one in seeds]
    row: Row = {
        "estimate": name,
        "ECE": round(fmean(ece([one[i] for i in answered], answered_wrong) for one in seeds), 3),
        "AURC": round(fmean(aurc(one, wrong) for one in heeding), 3),
    }
    for limit in limits:
        best = fmean(_most(one, wrong, limit) for one in heeding)
        row[f"kept at {limit:.0%}, at best"] = f"{best:.1%}"
    return row


def _most(scores: Scores, wrong: Sequence[bool], limit: float) -> float:
    curve = risk_coverage(scores, wrong)
    return max((point.coverage for point in curve if point.risk <= limit), default=0.0)
