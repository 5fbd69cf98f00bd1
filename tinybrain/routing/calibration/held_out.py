"""What a router says of outcomes that it was not fitted to. Needs numpy where it fits again.

An answer that was declined is escalated, whatever its signals: its score is the highest, 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.features import RAW
from tinybrain.routing.calibration.fitting import fit_scorer, told
from tinybrain.routing.calibration.gates import prefill_limit
from tinybrain.routing.calibration.outcomes import FEWEST, FEWEST_OF_A_LABEL, Outcome, answered
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.scorer import Scorer
from tinybrain.routing.calibration.splits import families_left_out, folds
from tinybrain.routing.gate import Gate

FOLDS = 5

Fit = Callable[[Sequence[Outcome]], Router]


class Judged(NamedTuple):
    """An outcome with what the gate makes of it."""

    outcome: Outcome
    p_wrong: float
    admitted: bool
    kept: bool


def judged(gate: Gate, outcomes: Sequence[Outcome]) -> list[Judged]:
    """What this gate makes of outcomes."""
    return [_judged(gate, outcome) for outcome in outcomes]


def cross_fitted(gate: Gate, outcomes: Sequence[Outcome], *, fit: Fit, seed: int) -> list[Judged]:
    """Each fifth of the outcomes as a router fitted to the others judges it, at this threshold.

    Raises:
        ConfigError: See `require_enough_to_cross_fit`.
    """
    require_enough_to_cross_fit(outcomes)
    found: dict[int, Judged] = {}
    for others, own in folds(outcomes, FOLDS, seed=seed):
        router = fit([outcomes[i] for i in others])
        opening = replace(gate.opening, estimate=router.opening.p_wrong)
        prefill = prefill_limit(router.prefill, router.outcomes)
        fold = replace(gate, opening=opening, prefill=prefill)
        found |= {i: _judged(fold, outcomes[i]) for i in own}
    return [found[i] for i in range(len(outcomes))]


def require_enough_to_cross_fit(outcomes: Sequence[Outcome]) -> None:
    """Check that outcomes can be fitted without a fifth of them.

    Raises:
        ConfigError: There are too few, or too few that are right or wrong.
    """
    fewest, of_a_label = (-(-n * FOLDS // (FOLDS - 1)) for n in (FEWEST, FEWEST_OF_A_LABEL))
    right = sum(o.right for o in outcomes)
    wrong = len(answered(outcomes)) - right
    if len(outcomes) < fewest or min(right, wrong) < of_a_label:
        raise ConfigError(
            f"{len(outcomes)} outcomes, {right} of them right, {wrong} wrong and the others "
            "declined, are too few to calibrate with and to measure by cross-fitting. Ask at least "
            f"{fewest} questions, {of_a_label} of them answered right and as many wrong, or mark "
            'some with "split": "test".'
        )


def scored_without_family(
    router: Router, known: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[float] | None:
    """P(wrong) of `outcomes`, each by a fit to those `known` that are of other families.

    It is fitted to the doubts that the router is. None where a family has no others to learn from.
    """
    is_raw = list(router.opening.weights) == [RAW]
    names = [RAW] if is_raw else told(known)
    scores = [1.0] * len(outcomes)
    for _, own in families_left_out(outcomes):
        family = outcomes[own[0]].family
        others = answered([o for o in known if o.family != family])
        if not others:
            return None
        scorer = fit_scorer(others, names) or Scorer(intercept=0.0, weights={RAW: 1.0})
        for i in own:
            if not outcomes[i].declined:
                scores[i] = scorer.p_wrong(outcomes[i].signals)
    return scores


def _judged(gate: Gate, outcome: Outcome) -> Judged:
    admitted = gate.judge_prompt(outcome.signals).passes
    verdict = gate.judge_opening(outcome.signals, declined=outcome.declined)
    return Judged(outcome, verdict.p_wrong, admitted, kept=admitted and verdict.passes)
