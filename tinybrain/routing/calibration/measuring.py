"""From what a gate made of held-out outcomes to the figures of its report."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.bounds import clopper_pearson, least_escalation
from tinybrain.routing.calibration.evaluation import (
    aurc,
    auroc,
    auroc_within,
    bootstrap,
    ece,
    reliability,
    risk_coverage,
)
from tinybrain.routing.calibration.gates import calibrated_gate, expected
from tinybrain.routing.calibration.held_out import (
    Fit,
    Judged,
    cross_fitted,
    judged,
    require_enough_to_cross_fit,
    scored_without_family,
)
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.report import (
    QUESTIONS,
    Costs,
    Estimate,
    Feasibility,
    GateFigures,
    Policy,
    Ranking,
    Report,
)
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.target import CONFIDENCE, Target
from tinybrain.routing.signals import Signals
from tinybrain.usdc import Usdc

DIGITS = 4
POINTS = 50
ERRORS_TOLD = (0.01, 0.02, 0.05, 0.1, 0.2)


class Prices(NamedTuple):
    """What a question brings, and what an escalated one costs."""

    answer: Usdc
    upstream: Usdc


class _Scored(NamedTuple):
    score: float
    wrong: bool
    family: str


_Statistic = Callable[[Sequence[_Scored]], float | None]


def calibrate(
    calibration: Sequence[Outcome],
    test: Sequence[Outcome],
    *,
    fit: Fit,
    prices: Prices,
    seed: int,
) -> Router:
    """A router fitted to `calibration`, with its report: measured on `test`, if there is any.

    Raises:
        ConfigError: There are too few outcomes, the router's target cannot be reached, or the
            small model declined all there is to measure with.
    """
    if not test:
        require_enough_to_cross_fit(calibration)
    router = fit(calibration)
    gate = calibrated_gate(router)
    rows = judged(gate, test) if test else cross_fitted(gate, calibration, fit=fit, seed=seed)
    left_out = scored_without_family(router, calibration, [row.outcome for row in rows])
    report = Report(
        checkpoint=router.checkpoint,
        made=router.made,
        measured_on="test" if test else "cross-fitting",
        calibrated_on=len(calibration),
        target=router.target,
        threshold=_rounded(gate.opening.max_p_wrong),
        feasibility=feasibility(router),
        price=prices.answer,
        upstream_cost=prices.upstream,
        costs=costs(rows, prices),
        **measured(rows, left_out, seed=seed),
    )
    return router.model_copy(update={"report": report})


def measured(
    rows: Sequence[Judged], left_out: Sequence[float] | None, *, seed: int
) -> dict[str, Any]:
    """The report's fields that these rows tell.

    `left_out` scores each without its own family, where there are others.
    """
    outcomes = [row.outcome for row in rows]
    answered = [row for row in rows if not row.outcome.declined]
    if not answered:
        raise ConfigError(
            f"The small model declined all {len(rows)} questions to measure with. Mark others "
            'with "split": "test", or none.'
        )
    p_wrong, wrong = [row.p_wrong for row in answered], [not r.outcome.right for r in answered]
    return {
        "n": len(rows),
        "families": len({outcome.family for outcome in outcomes}),
        "wrong": _share(sum(not o.right for o in outcomes), len(rows)),
        "gate": gate_figures(rows),
        "p_wrong": ranking([row.p_wrong for row in rows], outcomes, seed=seed),
        "families_left_out": _estimate(_auroc, _scored(left_out, outcomes), seed=seed)
        if left_out
        else None,
        "baselines": baselines(outcomes, seed=seed),
        "ece": _rounded(ece(p_wrong, wrong)),
        "reliability": [
            (_rounded(b.predicted), _rounded(b.observed), b.n) for b in reliability(p_wrong, wrong)
        ],
        "risk_coverage": curve(rows),
    }


def gate_figures(rows: Sequence[Judged]) -> GateFigures:
    """What the gate does."""
    n, kept = len(rows), [row for row in rows if row.kept]
    errors = sum(not row.outcome.right for row in kept)
    low, high = clopper_pearson(errors, len(kept), confidence=CONFIDENCE)
    return GateFigures(
        escalated=_share(n - len(kept), n),
        at_prefill=_share(sum(not row.admitted for row in rows), n),
        declined=_share(sum(row.admitted and row.outcome.declined for row in rows), n),
        kept=len(kept),
        local_error=Estimate(_share(errors, len(kept)), _rounded(low), _rounded(high)),
    )


def ranking(scores: Sequence[float], outcomes: Sequence[Outcome], *, seed: int) -> Ranking:
    """How well scores of doubt tell which of these are wrong; of the declined they are highest."""
    rows = _scored(scores, outcomes)
    answered = [row for row, o in zip(rows, outcomes, strict=True) if not o.declined]
    return Ranking(
        pooled=_estimate(_auroc, rows, seed=seed),
        answered=_estimate(_auroc, answered, seed=seed),
        within=_estimate(_auroc_within, rows, seed=seed),
        aurc=_rounded(aurc([row.score for row in rows], [row.wrong for row in rows])),
    )


def baselines(outcomes: Sequence[Outcome], *, seed: int) -> dict[str, Ranking]:
    """Single signals, where the model tells them, and chance."""
    draw = random.Random(seed)  # noqa: S311  # nothing is secret here
    signals: dict[str, Callable[[Signals], float | None]] = {
        "prompt perplexity": lambda s: s.perplexity,
        "lowest log-probability": lambda s: -s.min_logprob,
        "mean entropy": lambda s: s.mean_entropy,
        "random": lambda _: draw.random(),
    }
    found = {}
    for name, signal in signals.items():
        scores = [math.inf if o.declined else signal(o.signals) for o in outcomes]
        known = [score for score in scores if score is not None]
        if len(known) == len(scores):
            found[name] = ranking(known, outcomes, seed=seed)
    return found


def curve(rows: Sequence[Judged]) -> list[tuple[float, float]]:
    """Coverages, in some `POINTS` steps, with the share of what is kept there that is wrong."""
    points = risk_coverage([r.p_wrong for r in rows], [not r.outcome.right for r in rows])
    step = max(1, len(points) // POINTS)
    return [(_rounded(p.coverage), _rounded(p.risk)) for p in points[::-step][::-1]]


def feasibility(router: Router) -> list[Feasibility]:
    """What some errors allowed would cost, the router's own target among them."""
    outcomes = router.outcomes
    error = sum(not o.right for o in outcomes) / len(outcomes)
    declined = sum(o.declined for o in outcomes) / len(outcomes)
    return [
        Feasibility(
            max_local_error=limit,
            least_escalation=_rounded(least_escalation(error, limit, declined=declined)),
            escalated=_escalated(router, limit),
        )
        for limit in sorted({*ERRORS_TOLD, router.target.max_local_error or ERRORS_TOLD[0]})
    ]


def costs(rows: Sequence[Judged], prices: Prices) -> list[Costs]:
    """What this gate earns, and what two that decide nothing would."""
    n, kept = len(rows), [row for row in rows if row.kept]
    wrong_kept, wrong = (sum(not row.outcome.right for row in some) for some in (kept, rows))
    policies: list[tuple[Policy, int, int]] = [
        ("this gate", n - len(kept), wrong_kept),
        ("always escalate", n, 0),
        ("never escalate", 0, wrong),
    ]
    return [_costs(policy, bought / n, bad / n, prices) for policy, bought, bad in policies]


def _costs(policy: Policy, escalated: float, wrong: float, prices: Prices) -> Costs:
    bought = round(QUESTIONS * escalated)
    revenue, cost = QUESTIONS * prices.answer, bought * prices.upstream
    return Costs(
        policy=policy,
        escalated=bought,
        wrong=round(QUESTIONS * wrong),
        revenue=Usdc(revenue),
        cost=Usdc(cost),
        profit=revenue - cost,
    )


def _escalated(router: Router, limit: float) -> float | None:
    try:
        gate = calibrated_gate(router, Target(max_local_error=limit))
    except ConfigError:
        return None
    return _rounded(expected(gate, router.outcomes).escalated)


def _scored(scores: Sequence[float], outcomes: Sequence[Outcome]) -> list[_Scored]:
    return [_Scored(s, not o.right, o.family) for s, o in zip(scores, outcomes, strict=True)]


def _auroc(rows: Sequence[_Scored]) -> float | None:
    return auroc([row.score for row in rows], [row.wrong for row in rows])


def _auroc_within(rows: Sequence[_Scored]) -> float | None:
    scores, wrong, families = zip(*rows, strict=True)
    return auroc_within(scores, wrong, families)


def _estimate(statistic: _Statistic, rows: Sequence[_Scored], *, seed: int) -> Estimate | None:
    value = statistic(rows) if rows else None
    if value is None:
        return None
    low, high = bootstrap(statistic, rows, seed=seed)
    return Estimate(_rounded(value), _rounded(low), _rounded(high))


def _share(part: int, whole: int) -> float:
    return _rounded(part / whole) if whole else 0.0


def _rounded(value: float) -> float:
    return round(value, DIGITS)
