"""What a person asks of the gate, and the threshold on P(wrong) that does it on given outcomes."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.bounds import at_most, least_escalation

CONFIDENCE = 0.95
"""How sure a bound on the error is."""

STARTS = (1 / 2, 1 / 4)
"""The test begins where the estimate itself predicts these shares of the error allowed."""

MOST_THRESHOLDS = 100


class Target(BaseModel):
    """One of two: a share of questions to escalate, or the most that may be wrong of what is kept.

    Both are of the questions that reach the gate: those that no rule decides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    escalation_rate: float | None = Field(default=None, gt=0, lt=1)
    max_local_error: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.escalation_rate is None) == (self.max_local_error is None):
            raise ValueError("a target is either an escalation rate or a maximal local error")
        return self

    def __str__(self) -> str:
        if self.escalation_rate is not None:
            return f"{self.escalation_rate:.1%} of the questions are escalated"
        return (
            f"at most {self.max_local_error:.1%} of the answers that are kept are wrong "
            f"({CONFIDENCE:.0%} confidence)"
        )

    def threshold(
        self, p_wrong: Sequence[float], wrong: Sequence[bool], *, declined: int = 0
    ) -> float:
        """The P(wrong) up to which answers are kept; an infinite one is kept by none.

        `declined` are how many of the wrong the small model declined.

        Raises:
            ConfigError: More is escalated anyway than should be, or no threshold is shown to keep
                the error as low as it should be; the message tells the least share to escalate.
        """
        if self.escalation_rate is not None:
            return for_escalation_rate(p_wrong, self.escalation_rate)
        limit = self.max_local_error or 0.0
        found = for_local_error(p_wrong, wrong, limit)
        if found is None:
            n, error = len(wrong), sum(wrong) / len(wrong)
            least = least_escalation(error, limit, declined=declined / n)
            raise ConfigError(
                f"TINYBRAIN_MAX_LOCAL_ERROR of {100 * limit:.3g}% cannot be reached: no threshold "
                f"is shown to keep it on {n} calibration questions, of which the small model "
                f"declines {declined / n:.1%} and answers {error - declined / n:.1%} wrong. Even "
                f"an ideal gate would have to escalate {least:.1%}. Allow more error, calibrate "
                "with more questions, or set TINYBRAIN_TARGET_ESCALATION_RATE instead."
            )
        return found


def for_escalation_rate(p_wrong: Sequence[float], rate: float) -> float:
    """The threshold whose share of escalated outcomes is nearest to `rate`.

    Raises:
        ConfigError: More are escalated whatever it is, their P(wrong) being infinite.
    """
    n = len(p_wrong)
    anyway = p_wrong.count(math.inf) / n
    if rate < anyway < 1:  # all of them is no rate to be set
        raise ConfigError(
            f"TINYBRAIN_TARGET_ESCALATION_RATE of {rate:.2%} cannot be reached: {anyway:.2%} of "
            f"{n} questions are escalated anyway, on the prompt alone or because the small model "
            f"declines them. Set it to {math.ceil(anyway * 1000) / 1000:g} or more, or set "
            "TINYBRAIN_MAX_LOCAL_ERROR instead."
        )
    keeps = [(-math.inf, 0), *_thresholds(p_wrong)]
    return min(keeps, key=lambda keep: abs(1 - keep[1] / n - rate))[0]


def for_local_error(p_wrong: Sequence[float], wrong: Sequence[bool], limit: float) -> float | None:
    """The boldest threshold of which it is shown, at `CONFIDENCE`, that its error is below `limit`.

    Fixed-sequence testing: from each start the threshold rises while its Clopper-Pearson bound is
    below the limit, so that finding the boldest of many costs no more confidence than the starts
    do. Source: Angelopoulos et al., Learn then Test, 2021.

    That asks for starts that no label decides. P(wrong) decides these, of which the two numbers of
    Platt scaling come from the same labels: found harmless in simulation, where at a nominal 5 %
    at most 1.7 % of 600 runs kept more error than the limit.
    """
    ranked = sorted(zip(p_wrong, wrong, strict=True))
    errors = [0, *accumulate(label for _, label in ranked)]
    predicted = [0.0, *accumulate(p for p, _ in ranked)]
    keeps = _thresholds(p_wrong)
    mistaken = (1 - CONFIDENCE) / len(STARTS)
    best = None
    for share in STARTS:
        cautious = [i for i, (_, n) in enumerate(keeps) if predicted[n] <= share * limit * n]
        for threshold, kept in keeps[max(cautious, default=0) :]:
            # so few errors would be that improbable, were the true rate at the limit
            if at_most(errors[kept], kept, limit) > mistaken:
                break
            best = threshold if best is None else max(best, threshold)
    return best


def _thresholds(p_wrong: Sequence[float]) -> list[tuple[float, int]]:
    """At most `MOST_THRESHOLDS`, in ascending order, with how many outcomes each keeps."""
    ranked = sorted(p for p in p_wrong if p < math.inf)
    ends = [
        (p, kept)
        for kept, p in enumerate(ranked, start=1)
        if kept == len(ranked) or ranked[kept] > p
    ]
    step = max(1, -(-len(ends) // MOST_THRESHOLDS))
    return ends[::-step][::-1]
