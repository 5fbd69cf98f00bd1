"""P(wrong) of signals: a logistic function of weighted doubts. Plain Python: it runs in serving."""

import math
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tinybrain.routing.calibration.features import FEATURES
from tinybrain.routing.signals import Signals

MAX_WEIGHT = 1e3
MAX_INTERCEPT = 1e4

Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]


class Scorer(BaseModel):
    """Weights of doubts, by name. None is negative, so more doubt never means less P(wrong)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    intercept: float = Field(ge=-MAX_INTERCEPT, le=MAX_INTERCEPT)
    weights: dict[str, Weight] = Field(min_length=1)

    @classmethod
    def bounded(cls, intercept: float, weights: Mapping[str, float]) -> Self:
        """A scorer of what was fitted, made less steep where that is beyond its bounds.

        It ranks the same, and P(wrong) is 1/2 where it was.
        """
        excess = max(max(weights.values()) / MAX_WEIGHT, abs(intercept) / MAX_INTERCEPT)
        less = 1.0 if excess <= 1 else (1 - 1e-9) / excess  # rounding must not exceed them again
        return cls(
            intercept=intercept * less,
            weights={name: weight * less for name, weight in weights.items()},
        )

    @field_validator("weights")
    @classmethod
    def _are_of_features(cls, weights: dict[str, float]) -> dict[str, float]:
        if unknown := weights.keys() - FEATURES.keys():
            raise ValueError(f"there is no feature {min(unknown)!r}")
        return weights

    def p_wrong(self, signals: Signals) -> float:
        """The probability, in [0, 1], that the answer is wrong; 1 where a signal was not told."""
        logit = self.logit(signals)
        return 1.0 if logit is None else logistic(logit)

    def p_wrong_of_prompt(self, signals: Signals) -> float:
        """The same, but 0 where a signal was not told: an untold prompt is no reason to refuse."""
        logit = self.logit(signals)
        return 0.0 if logit is None else logistic(logit)

    def logit(self, signals: Signals) -> float | None:
        """Its log-odds; None where a signal was not told."""
        logit = self.intercept
        for name, weight in self.weights.items():
            value = FEATURES[name](signals)
            if value is None:
                return None
            logit += weight * value
        return logit


def logistic(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    small = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else small) / (1.0 + small)
