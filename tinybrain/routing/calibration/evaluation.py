"""How well scores of doubt tell wrong answers from right ones.

Everywhere `scores` are higher for more doubt, and `wrong` says of each whether its answer was.
"""

import random
from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

T = TypeVar("T")

FEW = 5
"""A group with fewer right or wrong answers than this says nothing about ranking."""


def auroc(scores: Sequence[float], wrong: Sequence[bool]) -> float | None:
    """The probability that a wrong answer scores above a right one, ties counting half.

    None where all are right or all are wrong. Source: Hanley and McNeil, 1982.
    """
    wrongs = sum(wrong)
    rights = len(wrong) - wrongs
    if not wrongs or not rights:
        return None
    ranks, begin = 0.0, 0
    for _, tied in groupby(sorted(zip(scores, wrong, strict=True)), key=lambda pair: pair[0]):
        labels = [label for _, label in tied]
        ranks += sum(labels) * (begin + (len(labels) + 1) / 2)
        begin += len(labels)
    return (ranks - wrongs * (wrongs + 1) / 2) / (wrongs * rights)


def auroc_within(
    scores: Sequence[float], wrong: Sequence[bool], groups: Sequence[Hashable]
) -> float | None:
    """The mean of each group's own AUROC, which no difference between groups can flatter.

    Groups with fewer than `FEW` right or wrong answers are left out; None if all are.
    """
    found = []
    for group in dict.fromkeys(groups):
        rows = [i for i, name in enumerate(groups) if name == group]
        labels = [wrong[i] for i in rows]
        if min(sum(labels), len(labels) - sum(labels)) >= FEW:
            found.append(auroc([scores[i] for i in rows], labels) or 0.0)
    return sum(found) / len(found) if found else None


class Point(NamedTuple):
    """At threshold `score` the share `coverage` is kept, and `risk` of what is kept is wrong."""

    score: float
    coverage: float
    risk: float


def risk_coverage(scores: Sequence[float], wrong: Sequence[bool]) -> list[Point]:
    """The risk-coverage curve, from the most cautious threshold to keeping everything."""
    points, kept, errors = [], 0, 0
    for score, tied in groupby(sorted(zip(scores, wrong, strict=True)), key=lambda pair: pair[0]):
        labels = [label for _, label in tied]
        kept, errors = kept + len(labels), errors + sum(labels)
        points.append(Point(score, kept / len(wrong), errors / kept))
    return points


def aurc(scores: Sequence[float], wrong: Sequence[bool]) -> float:
    """The area under the risk-coverage curve: the mean risk over all coverages."""
    area, covered = 0.0, 0.0
    for _, coverage, risk in risk_coverage(scores, wrong):
        area += (coverage - covered) * risk
        covered = coverage
    return area


class Bin(NamedTuple):
    """What was predicted on average for `n` answers, and the share of them that was wrong."""

    predicted: float
    observed: float
    n: int


def reliability(p_wrong: Sequence[float], wrong: Sequence[bool], *, bins: int = 10) -> list[Bin]:
    """The reliability diagram over `bins` equal parts of [0, 1]; empty ones are left out."""
    filled: dict[int, list[tuple[float, bool]]] = {}
    for p, label in zip(p_wrong, wrong, strict=True):
        filled.setdefault(min(int(p * bins), bins - 1), []).append((p, label))
    return [
        Bin(sum(p for p, _ in rows) / len(rows), sum(w for _, w in rows) / len(rows), len(rows))
        for _, rows in sorted(filled.items())
    ]


def ece(p_wrong: Sequence[float], wrong: Sequence[bool], *, bins: int = 10) -> float:
    """The expected calibration error: the bins' mean distance from the diagonal.

    Source: Guo et al., 2017.
    """
    found = reliability(p_wrong, wrong, bins=bins)
    return sum(b.n * abs(b.predicted - b.observed) for b in found) / len(wrong)


def bootstrap(
    statistic: Callable[[Sequence[T]], float | None],
    rows: Sequence[T],
    *,
    seed: int,
    repeats: int = 200,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """The percentile interval of a statistic of `rows`, each of which is drawn by itself.

    Draws that have none, as an AUROC where all are right, are left out.

    Raises:
        ValueError: No draw has one.
    """
    draw = random.Random(seed)  # noqa: S311  # nothing is secret here
    drawn = (statistic(draw.choices(rows, k=len(rows))) for _ in range(repeats))
    found = sorted(value for value in drawn if value is not None)
    if not found:
        raise ValueError(f"the statistic is None in all of {repeats} draws")
    cut = int(len(found) * (1 - confidence) / 2)
    return found[cut], found[-1 - cut]
