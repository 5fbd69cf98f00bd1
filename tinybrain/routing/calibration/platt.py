"""Platt scaling in plain Python: a serving process recalibrates with it, and has no numpy."""

import math
from collections.abc import Sequence

from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.scorer import Scorer, logistic

RIDGE = 1e-6
"""On the slope, which has no bound where the outcomes can be told apart without an error."""
MOST_STEPS = 50
TOLERANCE = 1e-5


def platt(scorer: Scorer, outcomes: Sequence[Outcome]) -> Scorer:
    """The same ranking, with the slope and intercept that fit these outcomes: calibrated.

    Outcomes of which a signal was not told have no say. Source: Platt, 1999.
    """
    pairs = [(scorer.logit(o.signals), not o.right) for o in outcomes]
    told = [(logit, wrong) for logit, wrong in pairs if logit is not None]
    slope, intercept = fit_line([logit for logit, _ in told], [wrong for _, wrong in told])
    return Scorer.bounded(
        intercept + slope * scorer.intercept,
        {name: slope * weight for name, weight in scorer.weights.items()},
    )


def fit_line(x: Sequence[float], wrong: Sequence[bool]) -> tuple[float, float]:
    """Slope, not negative, and intercept of the log-odds of `wrong` over `x`: most likely.

    Newton's method. Where all or none are wrong, nothing can be fitted: slope 1, intercept 0.
    """
    share = sum(wrong) / len(wrong) if wrong else 0.0
    if share in (0.0, 1.0):
        return 1.0, 0.0
    slope, intercept = 0.0, math.log(share / (1 - share))
    loss = _loss(x, wrong, slope, intercept)
    for _ in range(MOST_STEPS):
        by_slope, by_intercept = _newton_step(x, wrong, slope, intercept)
        while (found := _loss(x, wrong, slope + by_slope, intercept + by_intercept)) > loss and max(
            abs(by_slope), abs(by_intercept)
        ) > TOLERANCE:
            by_slope, by_intercept = by_slope / 2, by_intercept / 2
        slope, intercept, loss = slope + by_slope, intercept + by_intercept, found
        if max(abs(by_slope), abs(by_intercept)) <= TOLERANCE:
            break
    if slope < 0:
        return 0.0, math.log(share / (1 - share))
    return slope, intercept


def _newton_step(
    x: Sequence[float], wrong: Sequence[bool], slope: float, intercept: float
) -> tuple[float, float]:
    g0, g1, h00, h01, h11 = 0.0, RIDGE * slope, 1e-9, 0.0, RIDGE
    for value, label in zip(x, wrong, strict=True):
        p = logistic(slope * value + intercept)
        error, spread = p - label, p * (1 - p)
        g0, g1 = g0 + error, g1 + error * value
        h00, h01, h11 = h00 + spread, h01 + spread * value, h11 + spread * value * value
    determinant = h00 * h11 - h01 * h01
    return (h01 * g0 - h00 * g1) / determinant, (h01 * g1 - h11 * g0) / determinant


def _loss(x: Sequence[float], wrong: Sequence[bool], slope: float, intercept: float) -> float:
    total = RIDGE * slope * slope / 2
    for value, label in zip(x, wrong, strict=True):
        logit = slope * value + intercept
        total += max(logit, 0.0) + math.log1p(math.exp(-abs(logit))) - label * logit
    return total
