"""From what the ledger holds to the gate: the threshold that keeps to target and budget now.

A function of the rows and, for the budget, the hour: every replica comes to the same gate, and a
restart loses nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tinybrain.errors import ConfigError
from tinybrain.payments.records import Judged, Label, Spending
from tinybrain.routing.calibration.gates import later_limit, opening_limit, self_test
from tinybrain.routing.calibration.outcomes import FEWEST, FEWEST_OF_A_LABEL, Outcome, answered
from tinybrain.routing.calibration.platt import platt
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.scorer import Scorer
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import Estimate, Gate, Limit
from tinybrain.routing.online.drift import Reference
from tinybrain.routing.online.labels import representative
from tinybrain.routing.online.pacing import affordable, lowest_threshold
from tinybrain.routing.signals import Signals

NEWEST = 2_000
"""So many judged answers, and so many labels, are looked at."""

BOLDEST = 0.9
"""At most this share of the calibration's openings is released, or as many as at the start."""

KEPT = "none"
JUDGED_BY_OPENING = (KEPT, "uncertainty")
OPENED = (*JUDGED_BY_OPENING, "later_doubt")
"""These had an opening that can be compared with the calibration's, which knows nothing later."""


class Service(NamedTuple):
    """What was decided so far. `drift` and `escalated` are None below `FEWEST` answers."""

    judged: int
    escalated: float | None
    drift: float | None


@dataclass(frozen=True, slots=True)
class Tuner:
    """Moves the threshold of the gate that the service started with."""

    start: Gate
    router: Router
    target: Target
    outcomes: Sequence[Outcome]
    reference: Reference
    boldest: Signals
    """Of the calibration's openings, the last in doubt that may ever be released."""
    budget: int
    """Atomic USDC that may be spent a day, on everything that is bought."""

    @classmethod
    def of(cls, start: Gate, router: Router, target: Target, *, budget: int) -> "Tuner":
        """Read the router's outcomes once."""
        outcomes = router.outcomes
        p_wrong = [
            math.inf
            if o.declined or not start.judge_prompt(o.signals).passes
            else router.opening.p_wrong(o.signals)
            for o in outcomes
        ]
        boldest = outcomes[_boldest(p_wrong, start.opening.max_p_wrong)].signals
        return cls(start, router, target, outcomes, Reference(p_wrong), boldest, budget)

    def gate(self, judged: Sequence[Judged], labels: Sequence[Label]) -> Gate:
        """The gate of now; the one of the start where there is too little to learn from.

        A target of escalation is kept on the latest judged answers, one of error on the labels.
        Either takes at least `FEWEST` of them. The threshold is never above P(wrong) of `boldest`:
        where a target of escalation is filled with what is escalated anyway, it would end at 1.

        Raises:
            ConfigError: The target cannot be reached on these labels, or the gate would always
                do the same.
        """
        sample = representative(labels)
        scorer = self._recalibrated(sample)
        if self.target.escalation_rate is not None:
            # Recalibrating ranks as before: without answers to count, nothing would change.
            if len(judged) < FEWEST:
                return self.start
            scorer = scorer or self.router.opening
            threshold = self.target.threshold(_p_wrong(scorer.p_wrong, judged), [])
            opening = Limit(estimate=scorer.p_wrong, max_p_wrong=threshold)
        elif scorer is not None:
            opening = opening_limit(scorer, self.start.prefill, self.target, sample)
        else:
            return self.start
        gate = self._opened(opening)
        self_test(gate, self.outcomes)
        return gate

    def paced(self, gate: Gate, judged: Sequence[Judged], spending: Spending) -> Gate:
        """The gate whose purchases the day's budget pays for, the most doubtful questions first.

        The same gate where the budget suffices, or too little was judged or bought to tell, or
        where it would keep every one of the calibration's openings. Not above the cap of `gate`:
        what is left is up to the limits on money.
        """
        share = affordable(spending, self.budget)
        if share is None or len(judged) < FEWEST:
            return gate
        lowest = lowest_threshold(_p_wrong(gate.opening.estimate, judged), share)
        paced = self._opened(replace(gate.opening, max_p_wrong=lowest))
        if paced.opening.max_p_wrong <= gate.opening.max_p_wrong:
            return gate
        try:
            self_test(paced, self.outcomes)
        except ConfigError:
            return gate
        return paced

    def _opened(self, opening: Limit) -> Gate:
        cap = opening.estimate(self.boldest)
        opening = replace(opening, max_p_wrong=min(opening.max_p_wrong, cap))
        later = self.start.later and later_limit(opening)
        return replace(self.start, opening=opening, later=later)

    def service(self, judged: Sequence[Judged]) -> Service:
        """What these answers tell of the service."""
        n = len(judged)
        if n < FEWEST:
            return Service(n, None, None)
        escalated = sum(answer.reason != KEPT for answer in judged) / n
        p_wrong = _p_wrong(self.router.opening.p_wrong, judged, OPENED)
        return Service(n, escalated, self.reference.stability(p_wrong))

    def _recalibrated(self, sample: Sequence[Outcome]) -> Scorer | None:
        told = answered(sample)
        wrong = sum(not o.right for o in told)
        if len(sample) < FEWEST or min(wrong, len(told) - wrong) < FEWEST_OF_A_LABEL:
            return None
        return platt(self.router.opening, told)


def _boldest(p_wrong: Sequence[float], threshold: float) -> int:
    ranked = sorted((p, i) for i, p in enumerate(p_wrong) if p < math.inf)
    released = sum(p <= threshold for p, _ in ranked)
    return ranked[max(released, math.floor(BOLDEST * len(ranked))) - 1][1]


def _p_wrong(
    estimate: Estimate, judged: Sequence[Judged], reasons: Sequence[str] = JUDGED_BY_OPENING
) -> list[float]:
    """Infinite where the question was escalated for another of the reasons."""
    return [
        estimate(Signals.read(answer.signals)) if answer.reason in reasons else math.inf
        for answer in judged
    ]
