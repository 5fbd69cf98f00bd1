"""Tables of what gates keep: over random halves, on families left out, part by part.

Shares are means, with the range over the splits in brackets.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from cases import Case
from doubts import ESCALATED, PERPLEXITY, SIGNALS, heeding_declining, ruled
from gating import (
    Kept,
    LeftOut,
    fit,
    gate_for,
    is_shown,
    keeps,
    with_signal_alone,
)
from latency import Row

from tinybrain.routing.calibration.bounds import clopper_pearson, least_escalation
from tinybrain.routing.calibration.gates import prefill_limit
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.splits import parted
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import Gate

TARGETS = (0.05, 0.10)
P_WRONG = "P(wrong)"
RIVALS = ("mean entropy", "mean log-probability", "lowest log-probability", PERPLEXITY)
CAUGHT = 90  # percent

Counted = Callable[[Case], bool]


@dataclass(frozen=True, slots=True)
class Split:
    """What one gate did with the cases that it was not calibrated with."""

    all: Kept
    facts: Kept
    talk_escalated: float | None
    let_through: float | None
    was_possible: bool

    def meets(self, limit: float) -> bool:
        """Whether answers were kept, and no more of them wrong than allowed."""
        return self.was_possible and self.all.error <= limit

    @classmethod
    def of(cls, gate: Gate | None, test: Sequence[Case]) -> "Split":
        talk = [case for case in test if case.kind == "talk" and case.right]
        beyond = [case for case in test if case.kind == "out_of_scope"]
        return cls(
            all=Kept.of(gate, test),
            facts=Kept.of(gate, [case for case in test if case.is_fact]),
            talk_escalated=share(talk, lambda case: not is_shown(gate, case)),
            let_through=share(beyond, lambda case: is_shown(gate, case)),
            was_possible=gate is not None,
        )


def over_random_halves(
    cases: Sequence[Case], *, splits: int
) -> dict[tuple[float, str], list[Split]]:
    """For each target and score, what its gate did in each split."""
    found: dict[tuple[float, str], list[Split]] = {}
    for seed in range(splits):
        calibration, test = parted(cases, one_in=2, seed=seed)
        router = fit(calibration, seed=seed, target=Target(max_local_error=TARGETS[0]))
        routers = {P_WRONG: router}
        for name in RIVALS:
            feature, doubt = SIGNALS[name]
            if all(doubt(case) is not None for case in cases):
                routers[name] = with_signal_alone(router, feature, calibration, seed=seed)
        for limit in TARGETS:
            for name, one in routers.items():
                gate = gate_for(one, Target(max_local_error=limit))
                found.setdefault((limit, name), []).append(Split.of(gate, test))
    return found


def split_row(limit: float, name: str, splits: Sequence[Split]) -> Row:
    row: Row = {
        "target": f"{limit:.0%}",
        "opening judged by": name,
        "kept": ranged(split.all.share for split in splits),
        "error": ranged(split.all.error for split in splits),
        "target met": f"{sum(split.meets(limit) for split in splits)} of {len(splits)}",
        "not reachable": sum(not split.was_possible for split in splits),
        "facts and sums kept": ranged(split.facts.share for split in splits),
        "their error": ranged(split.facts.error for split in splits),
    }
    for column, values in (
        ("right talk escalated", [split.talk_escalated for split in splits]),
        ("out of scope let through", [split.let_through for split in splits]),
    ):
        if None not in values:
            row[column] = ranged(values)
    return row


def left_out_splits(fifths: Mapping[int, Sequence[LeftOut]], limit: float) -> list[Split]:
    """One split for each seed: every family is judged by a router that never saw it."""
    splits, target = [], Target(max_local_error=limit)
    for parts in fifths.values():
        judged = [(gate_for(part.router, target), part.cases) for part in parts]
        each = [(Split.of(gate, cases), cases) for gate, cases in judged]
        splits.append(
            Split(
                all=total(split.all for split, _ in each),
                facts=total(split.facts for split, _ in each),
                talk_escalated=share_of_all(
                    judged, lambda c: c.kind == "talk" and c.right, lambda g, c: not is_shown(g, c)
                ),
                let_through=share_of_all(judged, lambda c: c.kind == "out_of_scope", is_shown),
                was_possible=any(split.was_possible for split, _ in each),
            )
        )
    return splits


def feasibility(cases: Sequence[Case]) -> list[Row]:
    """What the best gate that could be would do."""
    rows = []
    for name, some in (("all", cases), ("facts and sums", [c for c in cases if c.is_fact])):
        if not some:
            continue
        error = share(some, lambda case: not case.right)
        row: Row = {"questions": name, "n": len(some), "answered right": f"{1 - error:.1%}"}
        for limit in TARGETS:
            row[f"must be escalated for {limit:.0%}"] = f"{least_escalation(error, limit):.1%}"
        rows.append(row)
    return rows


def part_by_part(routers: Sequence[Router], test: Sequence[Case], limit: float) -> list[Row]:
    """Of prompts out of scope, how many each part of the decision lets through, and all."""
    prompts = [case for case in test if case.kind == "out_of_scope"]
    gates = [gate_for(router, Target(max_local_error=limit)) for router in routers]
    on_prompts = [prefill_limit(router.prefill, router.outcomes) for router in routers]
    parts: dict[str, Iterable[Counted]] = {
        "keyword and complexity rules alone": [lambda case: ruled(case) != ESCALATED],
        "the model's own declining alone": [lambda case: not case.declined],
        "the gate on the prompt alone": [
            partial(lambda one, case: one is None or one.passes(case.signals), limit)
            for limit in on_prompts
        ],
        f"the gate ({limit:.0%})": [partial(keeps, gate) for gate in gates],
        "all together": [partial(is_shown, gate) for gate in gates],
    }
    return [
        _part_row(name, [sum(map(let_through, prompts)) for let_through in each], len(prompts))
        for name, each in parts.items()
    ]


def _part_row(name: str, through: Sequence[int], n: int) -> Row:
    count = round(fmean(through))
    low, high = clopper_pearson(count, n, confidence=0.95)
    return {
        "decided by": name,
        "prompts": n,
        "let through, by seed": ", ".join(map(str, through)),
        "share": f"{count / n:.1%} ({low:.1%} to {high:.1%})",
    }


def where_most_wrong_are_caught(
    calibration: Mapping[str, Sequence[Sequence[float]]],
    test: Mapping[str, Sequence[Sequence[float]]],
    calibrated_on: Sequence[Case],
    cases: Sequence[Case],
) -> list[Row]:
    """Each score at the threshold above which lie 90 % of the wrong facts and sums."""
    rows = []
    for name, seeds in calibration.items():
        flags = [
            _flags(
                heeding_declining(chosen, calibrated_on),
                heeding_declining(measured, cases),
                calibrated_on,
            )
            for chosen, measured in zip(seeds, test[name], strict=True)
        ]
        rows.append(
            {
                "score": name,
                "wrong facts caught": _flagged(flags, cases, lambda c: c.is_fact and not c.right),
                "right facts escalated": _flagged(flags, cases, lambda c: c.is_fact and c.right),
                "right talk escalated": _flagged(
                    flags, cases, lambda c: c.kind == "talk" and c.right
                ),
                "out of scope let through": _flagged(
                    flags, cases, lambda c: c.kind == "out_of_scope", flagged=False
                ),
            }
        )
    return rows


def _flags(
    chosen: Sequence[float], measured: Sequence[float], calibrated_on: Sequence[Case]
) -> list[bool]:
    wrong = sorted(
        score
        for case, score in zip(calibrated_on, chosen, strict=True)
        if case.is_fact and not case.right
    )
    threshold = wrong[len(wrong) * (100 - CAUGHT) // 100]
    return [score >= threshold for score in measured]


def _flagged(
    seeds: Sequence[Sequence[bool]], cases: Sequence[Case], counts: Counted, *, flagged: bool = True
) -> str:
    shares = [
        sum(flag == flagged for flag in counted) / len(counted)
        for flags in seeds
        for counted in [[f for f, case in zip(flags, cases, strict=True) if counts(case)]]
        if counted
    ]
    return f"{fmean(shares):.1%}" if shares else "-"


def share(cases: Sequence[Case], counts: Counted) -> float | None:
    """None of no cases."""
    return sum(map(counts, cases)) / len(cases) if cases else None


def share_of_all(
    judged: Iterable[tuple[Gate | None, Sequence[Case]]],
    belongs: Counted,
    counts: Callable[[Gate | None, Case], bool],
) -> float | None:
    """The share of the cases that belong, each judged by its own gate."""
    found = [counts(gate, case) for gate, cases in judged for case in cases if belongs(case)]
    return sum(found) / len(found) if found else None


def total(parts: Iterable[Kept]) -> Kept:
    return Kept(*(sum(counts) for counts in zip(*parts, strict=True)))


def ranged(values: Iterable[float]) -> str:
    found = list(values)
    return f"{fmean(found):.1%} ({min(found):.1%} to {max(found):.1%})"
