"""What a calibrated gate keeps and escalates, of questions that it was not calibrated with."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from cases import HOLD_BACK_TOKENS, Case
from doubts import Scores

from tinybrain.chat import Message
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.fitting import fit_router, fit_scorer
from tinybrain.routing.calibration.gates import opening_limit, prefill_limit
from tinybrain.routing.calibration.outcomes import answered
from tinybrain.routing.calibration.platt import platt
from tinybrain.routing.calibration.router import FITTED_ON, Router
from tinybrain.routing.calibration.scorer import Scorer
from tinybrain.routing.calibration.splits import parted
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import Gate
from tinybrain.routing.rules import Rules

FIFTHS = 5


def fit(cases: Sequence[Case], *, seed: int, target: Target) -> Router:
    """The router that calibrating on these cases gives."""
    return fit_router(
        cases,
        checkpoint="benchmark",
        made=date(2026, 1, 1),
        hold_back_tokens=HOLD_BACK_TOKENS,
        target=target,
        seed=seed,
    )


def with_signal_alone(router: Router, feature: str, cases: Sequence[Case], *, seed: int) -> Router:
    """The same router, whose opening is judged by one signal, calibrated likewise."""
    fitted_on, kept = parted(cases, one_in=FITTED_ON, seed=seed)
    scorer = fit_scorer(answered(fitted_on), [feature])
    if scorer is None:
        scorer = Scorer(intercept=0.0, weights={feature: 0.0})
    return router.model_copy(update={"opening": platt(scorer, answered(kept))})


def gate_for(router: Router, target: Target) -> Gate | None:
    """The gate that reaches the target; None where none can."""
    outcomes = router.outcomes
    prefill = prefill_limit(router.prefill, outcomes)
    try:
        opening = opening_limit(router.opening, prefill, target, outcomes)
    except ConfigError:
        return None
    return Gate(opening=opening, prefill=prefill)


def keeps(gate: Gate | None, case: Case) -> bool:
    """Whether its answer is shown; without a gate that reaches the target, none is."""
    return (
        gate is not None
        and gate.judge_prompt(case.signals).passes
        and gate.judge_opening(case.signals, declined=case.declined).passes
    )


class Kept(NamedTuple):
    """Counts: of `n` cases `kept`, and `wrong` of those."""

    n: int
    kept: int
    wrong: int

    @classmethod
    def of(cls, gate: Gate | None, cases: Sequence[Case]) -> "Kept":
        kept = [case for case in cases if keeps(gate, case)]
        return cls(len(cases), len(kept), sum(not case.right for case in kept))

    @property
    def share(self) -> float:
        return self.kept / self.n if self.n else 0.0

    @property
    def error(self) -> float:
        return self.wrong / self.kept if self.kept else 0.0


def p_wrong(router: Router, cases: Sequence[Case]) -> Scores:
    return [router.opening.p_wrong(case.signals) for case in cases]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Cases of families that their router never saw."""

    router: Router
    cases: list[Case]


def families_left_out(
    calibration: Sequence[Case], test: Sequence[Case], *, seed: int, target: Target
) -> Iterator[LeftOut]:
    """A fifth of the families at a time, of every kind: all others' router, and these cases."""
    kinds: dict[str, set[str]] = {}
    for case in (*calibration, *test):
        kinds.setdefault(case.kind, set()).add(case.family)
    draw = random.Random(seed)
    ordered = [
        family
        for _, families in sorted(kinds.items())
        for family in draw.sample(sorted(families), len(families))
    ]
    for fifth in range(FIFTHS):
        left_out = set(ordered[fifth::FIFTHS])
        router = fit(
            [case for case in calibration if case.family not in left_out], seed=seed, target=target
        )
        yield LeftOut(router, [case for case in test if case.family in left_out])


def is_shown(gate: Gate | None, case: Case) -> bool:
    """Whether rules, gate and the model's own declining together let its answer be shown."""
    verdict = Rules().decide([Message("user", case.text)]).verdict
    return verdict != "escalate" and (keeps(gate, case) if verdict is None else not case.declined)
