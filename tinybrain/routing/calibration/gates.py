"""From a router and a target to a gate, and what that gate is to be expected to do."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.scorer import Scorer
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import Gate, Limit

LOST_AT_PREFILL = 0.01
"""The most that is given away of what would be answered right, where only the prompt is known."""

LATER_P_WRONG = 0.5
"""Up to where an answer under way goes on: until it is more likely wrong than right."""


class Expectation(NamedTuple):
    """Shares: of `n` questions escalated (at the prefill alone), and wrong of what is kept."""

    n: int
    escalated: float
    at_prefill: float
    local_error: float


def calibrated_gate(router: Router, target: Target | None = None) -> Gate:
    """The gate that reaches the target, else the router's own, on the router's outcomes.

    Raises:
        ConfigError: The target cannot be reached, or the gate would not work: see `self_test`.
    """
    outcomes = router.outcomes
    prefill = prefill_limit(router.prefill, outcomes)
    opening = opening_limit(router.opening, prefill, target or router.target, outcomes)
    gate = Gate(
        opening=opening,
        prefill=prefill,
        later=later_limit(opening),
        hold_back_tokens=router.hold_back_tokens,
        declines=router.declines,
    )
    self_test(gate, outcomes)
    return gate


def prefill_limit(scorer: Scorer | None, outcomes: Sequence[Outcome]) -> Limit | None:
    """Up to where a prompt is admitted: what refuses at most `LOST_AT_PREFILL` of the right.

    One whose signals are not told is admitted, and judged on its opening.
    """
    estimate = scorer.p_wrong_of_prompt if scorer else None
    right = sorted(estimate(o.signals) for o in outcomes if o.right) if estimate else []
    if estimate is None or not right:
        return None
    lost = math.floor(LOST_AT_PREFILL * len(right))
    return Limit(estimate=estimate, max_p_wrong=right[-1 - lost])


def opening_limit(
    scorer: Scorer, prefill: Limit | None, target: Target, outcomes: Sequence[Outcome]
) -> Limit:
    """Up to where an opening is released; what was declined or not admitted is escalated anyway.

    Raises:
        ConfigError: The target cannot be reached.
    """
    p_wrong = [
        scorer.p_wrong(o.signals)
        if not o.declined and (prefill is None or prefill.passes(o.signals))
        else math.inf
        for o in outcomes
    ]
    declined = sum(o.declined for o in outcomes)
    threshold = target.threshold(p_wrong, [not o.right for o in outcomes], declined=declined)
    return Limit(estimate=scorer.p_wrong, max_p_wrong=threshold)


def later_limit(opening: Limit) -> Limit:
    """Up to where tokens after the opening pass.

    P(wrong) was calibrated on openings, so only what is plainly doubtful counts later.
    """
    return replace(opening, max_p_wrong=max(opening.max_p_wrong, LATER_P_WRONG))


def expected(gate: Gate, outcomes: Sequence[Outcome]) -> Expectation:
    """What the gate does with these outcomes."""
    admitted = [o for o in outcomes if gate.judge_prompt(o.signals).passes]
    kept = [o for o in admitted if gate.judge_opening(o.signals, declined=o.declined).passes]
    n = len(outcomes)
    return Expectation(
        n=n,
        escalated=1 - len(kept) / n,
        at_prefill=1 - len(admitted) / n,
        local_error=sum(not o.right for o in kept) / len(kept) if kept else 0.0,
    )


def self_test(gate: Gate, outcomes: Sequence[Outcome]) -> None:
    """Check that the gate releases some of the openings it judges, and escalates others.

    What is refused at the prompt or declined says nothing of it: that is escalated anyway.

    Raises:
        ConfigError: It always does the same, so it decides nothing.
    """
    openings = [o for o in outcomes if not o.declined and gate.judge_prompt(o.signals).passes]
    kept = sum(gate.judge_opening(o.signals).passes for o in openings)
    if 0 < kept < len(openings):
        return
    raise ConfigError(
        f"The gate {'keeps' if kept else 'escalates'} every one of the {len(openings)} openings "
        f"that it judges of {len(outcomes)} calibration questions, so it decides nothing. Set "
        "TINYBRAIN_TARGET_ESCALATION_RATE or TINYBRAIN_MAX_LOCAL_ERROR to something that it can "
        "reach, or calibrate with questions that the small model answers right and others that "
        "it answers wrong."
    )
