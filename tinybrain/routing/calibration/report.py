"""What a calibration is worth, in figures: the contents of `report.json`, also kept in the router.

Shares are in [0, 1], money is atomic USDC.
"""

from datetime import date
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from tinybrain.routing.calibration.target import Target
from tinybrain.usdc import Usdc

QUESTIONS = 1_000
"""Of so many questions costs are told."""

Policy = Literal["this gate", "always escalate", "never escalate"]


class _Figures(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Ranking(_Figures):
    """How well one score tells wrong answers from right ones; what is declined scores highest.

    AUROC of all answers, of those that were not declined, and within families; None where all are
    right or all are wrong.
    """

    pooled: Estimate | None
    answered: Estimate | None
    within: Estimate | None
    aurc: float


class GateFigures(_Figures):
    """What the gate does with the questions measured: shares of all, and the error of the kept."""

    escalated: float
    at_prefill: float
    declined: float
    kept: int
    local_error: Estimate


class Feasibility(_Figures):
    """What an error allowed costs: the least escalation of an ideal gate, and this router's.

    `escalated` is of the router's own outcomes; None where no threshold is shown to keep it.
    """

    max_local_error: float
    least_escalation: float
    escalated: float | None


class Costs(_Figures):
    """What `QUESTIONS` questions bring; `wrong` are those that TinyChat answers wrong itself."""

    policy: Policy
    escalated: int
    wrong: int
    revenue: Usdc
    cost: Usdc
    profit: int


class Report(_Figures):
    """A calibration measured on questions that P(wrong) was not fitted to.

    Measured by cross-fitting, the threshold is the router's, which was chosen on two thirds of
    the same questions. The interval of `families_left_out` is for other questions of these
    families.

    `reliability` holds for tenths of P(wrong), of what was not declined, the mean predicted, the
    share that was wrong, and the number. `risk_coverage` are coverages with the risk there.
    """

    checkpoint: str
    made: date
    measured_on: Literal["test", "cross-fitting"]
    calibrated_on: int
    n: int
    families: int
    wrong: float
    target: Target
    threshold: float
    gate: GateFigures
    p_wrong: Ranking
    families_left_out: Estimate | None
    ece: float
    baselines: dict[str, Ranking]
    reliability: list[tuple[float, float, int]]
    risk_coverage: list[tuple[float, float]]
    feasibility: list[Feasibility]
    price: Usdc
    upstream_cost: Usdc
    costs: list[Costs]
