"""Fits a router to labelled outcomes. Needs numpy, unlike serving it."""

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.evaluation import auroc
from tinybrain.routing.calibration.features import FEATURES, PREFILL, RAW
from tinybrain.routing.calibration.outcomes import FEWEST, FEWEST_OF_A_LABEL, Outcome, answered
from tinybrain.routing.calibration.platt import platt
from tinybrain.routing.calibration.router import FITTED_ON, MAX_CALIBRATED, MAX_OUTCOMES, Router
from tinybrain.routing.calibration.scorer import Scorer
from tinybrain.routing.calibration.splits import families_left_out, parted
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.signals import Signals

Floats = NDArray[np.float64]

RIDGE = 10.0
"""Penalty on squared weights of standardised features; a few hundred outcomes outweigh it."""

MOST_STEPS, MOST_SWEEPS = 50, 500
TOLERANCE = 1e-5


def fit_router(
    outcomes: Sequence[Outcome],
    *,
    checkpoint: str,
    made: date,
    hold_back_tokens: int,
    target: Target,
    declines: str | None = None,
    seed: int = 0,
) -> Router:
    """Fit on a third of the outcomes; calibrate on the others, which the router keeps.

    A few weights need few outcomes; a threshold is the bolder, the more it is shown on.

    What the small model declines never reaches the opening's scorer, and teaches it nothing.

    Each question should be among the outcomes once: the bounds count them as independent. The
    signals must be of the first `hold_back_tokens` tokens of greedy answers.

    Raises:
        ConfigError: There are too few outcomes, too few that are right or wrong, or too many.
    """
    _require_some(outcomes)
    fitted_on, kept = parted(outcomes, one_in=FITTED_ON, seed=seed)
    opening = fit_opening(answered(fitted_on))
    prefill = fit_scorer(fitted_on, [name for name in told(outcomes) if name in PREFILL])
    return Router.of(
        kept,
        checkpoint=checkpoint,
        made=made,
        hold_back_tokens=hold_back_tokens,
        declines=declines,
        target=target,
        opening=platt(opening, answered(kept)),
        prefill=platt(prefill, kept) if prefill else None,
    )


def fit_opening(outcomes: Sequence[Outcome]) -> Scorer:
    """All that the model tells, where that beats the least certain token on families left out."""
    raw = _only([RAW], outcomes)
    names = told(outcomes)
    wrong = [not o.right for o in outcomes]
    left_out = [0.0] * len(outcomes)
    for others, own in families_left_out(outcomes):
        scorer = fit_scorer([outcomes[i] for i in others], names) or raw
        for i in own:
            left_out[i] = scorer.p_wrong(outcomes[i].signals)
    simple = [raw.p_wrong(o.signals) for o in outcomes]
    wins = (auroc(left_out, wrong) or 0.0) > (auroc(simple, wrong) or 0.0)
    return (fit_scorer(outcomes, names) if wins else None) or raw


def told(outcomes: Sequence[Outcome]) -> list[str]:
    """The features that the model tells with every one of these outcomes."""
    return [
        name
        for name, feature in FEATURES.items()
        if all(feature(o.signals) is not None for o in outcomes)
    ]


def fit_scorer(outcomes: Sequence[Outcome], names: Sequence[str]) -> Scorer | None:
    """A ridge-penalised logistic regression on standardised doubts, none of them negative.

    None where nothing can be learnt: no doubt gets a weight.
    """
    if not names or len({o.right for o in outcomes}) <= 1:
        return None
    wrong = np.array([not o.right for o in outcomes], dtype=np.float64)
    x = _matrix([o.signals for o in outcomes], names)
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    weights, intercept = fit_logistic((x - mean) / deviation, wrong, ridge=RIDGE)
    weights = weights / deviation
    if not weights.any():
        return None
    return Scorer.bounded(
        float(intercept - weights @ mean),
        {n: float(w) for n, w in zip(names, weights, strict=True) if w > 0},
    )


def fit_logistic(x: Floats, wrong: Floats, *, ridge: float) -> tuple[Floats, float]:
    """Weights [d] >= 0 and an intercept for x [n, d]: penalised maximum likelihood.

    Newton's method, each step of which minimises its quadratic within the bounds.
    """
    design = np.column_stack([x, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], ridge), 0.0)
    beta = np.zeros(design.shape[1])
    for _ in range(MOST_STEPS):
        p = _logistic(design @ beta)
        gradient = design.T @ (p - wrong) + penalty * beta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty + 1e-9)
        step = _bounded_step(beta, gradient, hessian)
        before = _loss(design, wrong, penalty, beta)
        while _loss(design, wrong, penalty, beta + step) > before and abs(step).max() > TOLERANCE:
            step = step / 2
        beta = beta + step
        if abs(step).max() <= TOLERANCE:
            break
    return beta[:-1], float(beta[-1])


def _bounded_step(beta: Floats, gradient: Floats, hessian: Floats) -> Floats:
    """The step that minimises a quadratic while all but the last of beta stay >= 0.

    Coordinate descent, which converges because the bounds are on single coordinates.
    """
    step = np.zeros_like(beta)
    lowest = np.append(-beta[:-1], -np.inf)
    for _ in range(MOST_SWEEPS):
        before = step.copy()
        for j in range(len(beta)):
            slope = gradient[j] + hessian[j] @ step
            step[j] = max(lowest[j], step[j] - slope / hessian[j, j])
        if abs(step - before).max() <= TOLERANCE / 10:
            break
    return step


def _loss(design: Floats, wrong: Floats, penalty: Floats, beta: Floats) -> float:
    logits = design @ beta
    return float(np.sum(np.logaddexp(0, logits) - wrong * logits) + penalty @ beta**2 / 2)


def _logistic(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))


def _matrix(signals: Sequence[Signals], names: Sequence[str]) -> Floats:
    return np.array(
        [[FEATURES[name](each) for name in names] for each in signals], dtype=np.float64
    )


def _only(names: list[str], outcomes: Sequence[Outcome]) -> Scorer:
    return fit_scorer(outcomes, names) or Scorer(intercept=0.0, weights=dict.fromkeys(names, 1.0))


def _require_some(outcomes: Sequence[Outcome]) -> None:
    if len(outcomes) > MAX_CALIBRATED:
        raise ConfigError(
            f"{len(outcomes):,} outcomes are too many for a router, which holds {MAX_OUTCOMES:,}. "
            f"Ask at most {MAX_CALIBRATED:,} questions to calibrate with."
        )
    right = sum(o.right for o in outcomes)
    wrong = len(answered(outcomes)) - right
    if len(outcomes) < FEWEST or min(wrong, right) < FEWEST_OF_A_LABEL:
        raise ConfigError(
            f"{len(outcomes)} outcomes, {right} of them right, {wrong} wrong and the others "
            f"declined, are too few to calibrate with: at least {FEWEST} are needed, "
            f"{FEWEST_OF_A_LABEL} of them right and as many wrong. Ask more questions: known ones, "
            "unknown ones, and small talk."
        )
