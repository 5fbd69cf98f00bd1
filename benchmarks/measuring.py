"""Everything that is measured on the cases of one small model, as tables and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cases import Case
from doubts import PERPLEXITY, RANDOM, RULES, Scores, baselines
from gating import families_left_out, fit, p_wrong
from judging import Aim, best_simple, compared, on_feasibility, on_keeping, on_ranking, on_reaching
from keeping import (
    P_WRONG,
    RIVALS,
    TARGETS,
    Split,
    feasibility,
    left_out_splits,
    over_random_halves,
    part_by_part,
    split_row,
    where_most_wrong_are_caught,
)
from latency import Row
from ranking import Interval, Ranking, calibration_row, ranked_row
from saving import LARGER_RIGHT, Saving

from tinybrain.routing.calibration.bounds import clopper_pearson
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import least_certain_token
from tinybrain.usdc import ATOMIC_PER_DOLLAR, Usdc

SEEDS = (0, 1, 2)
LEFT_OUT = "P(wrong), families left out"
LEAST_CERTAIN = "least certain token, not calibrated"
ASKED = "What is asked"
RANKED = 'AUROC of "the answer is wrong", facts and sums'
TARGET = Target(max_local_error=TARGETS[0])


@dataclass
class Measured:
    """What is printed: tables by their headings, aims, and what the figures say."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    aims: list[Aim] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    def recorded(self) -> dict[str, object]:
        """As JSON."""
        return {
            "tables": self.tables,
            "aims": [aim.row() for aim in self.aims],
            "verdicts": self.verdicts,
        }


class Measurement:
    """Routers of three seeds, fitted once; each method measures one thing."""

    def __init__(self, cases: Sequence[Case], *, splits: int, seeds: Sequence[int] = SEEDS) -> None:
        self.cases = cases
        self.calibration = [case for case in cases if case.split == "calibration"]
        self.test = [case for case in cases if case.split == "test"]
        self.facts = [case for case in self.test if case.is_fact]
        self.routers = [fit(self.calibration, seed=seed, target=TARGET) for seed in seeds]
        self.fifths = {
            seed: list(families_left_out(self.calibration, self.test, seed=seed, target=TARGET))
            for seed in seeds
        }
        self.kept = over_random_halves(cases, splits=splits)
        self.seeds = seeds

    def measure(self, price: Usdc) -> Measured:
        found = Measured()
        found.tables[ASKED] = feasibility(self.test)
        self._rank(found)
        self._keep(found)
        self._save(found, price)
        return found

    def scores(self, cases: Sequence[Case]) -> dict[str, list[Scores]]:
        """Every score; of those that are fitted, or random, one list a seed."""
        simple = {name: [one] for name, one in baselines(cases, seed=0).items()}
        simple[RANDOM] = [baselines(cases, seed=seed)[RANDOM] for seed in self.seeds]
        return {P_WRONG: [p_wrong(router, cases) for router in self.routers], **simple}

    def left_out_scores(self, cases: Sequence[Case]) -> list[Scores]:
        """P(wrong) of each test case by the router that never saw its family, one list a seed."""
        seeds = []
        for parts in self.fifths.values():
            found = {
                case.text: score
                for part in parts
                for case, score in zip(part.cases, p_wrong(part.router, part.cases), strict=True)
            }
            seeds.append([found[case.text] for case in cases])
        return seeds

    def _rank(self, found: Measured) -> None:
        scores = {LEFT_OUT: self.left_out_scores(self.facts)} | self.scores(self.facts)
        ranking = Ranking(self.facts, scores, seed=0)
        ranked = {name: ranking.of(name) for name in ranking.names}
        found.tables[RANKED] = [ranked_row(name, one) for name, one in ranked.items()]
        simple = best_simple(ranking)
        found.verdicts += [
            on_ranking(ranking, simple),
            on_ranking(ranking, simple, fitted=LEFT_OUT),
            f"Seeds by themselves: {', '.join(f'{one:.3f}' for one in ranking.of_seeds(P_WRONG))}.",
        ]
        found.aims += [
            Aim("AUROC, pooled", 0.96, True, ranked[P_WRONG].heeding),
            Aim("AUROC, families left out", 0.93, True, ranked[LEFT_OUT].heeding),
        ]
        if (within := ranked[P_WRONG].heeding_within) is not None:
            found.aims.append(Aim("AUROC, within a family", 0.95, True, within))
        least_certain = [[least_certain_token(case.signals) for case in self.facts]]
        found.tables["Probabilities, facts and sums"] = [
            calibration_row(name, self.facts, seeds, TARGETS)
            for name, seeds in (
                (P_WRONG, scores[P_WRONG]),
                (LEFT_OUT, scores[LEFT_OUT]),
                (LEAST_CERTAIN, least_certain),
            )
        ]

    def _keep(self, found: Measured) -> None:
        rows = [split_row(limit, name, splits) for (limit, name), splits in self.kept.items()]
        left_out = {limit: left_out_splits(self.fifths, limit) for limit in TARGETS}
        rows += [split_row(limit, LEFT_OUT, splits) for limit, splits in left_out.items()]
        found.tables["Kept locally, over splits"] = rows
        found.verdicts += on_keeping(self.kept)
        for limit in TARGETS:
            found.verdicts += [
                on_feasibility(_error(self.cases), limit),
                on_reaching(limit, self.kept[limit, P_WRONG]),
            ]
        strict = self.kept[TARGETS[0], P_WRONG]
        facts_kept = _over(strict, lambda split: split.facts.share)
        found.aims += [
            Aim("facts and sums kept at 5 % error", 0.48, True, facts_kept),
            Aim("splits that met 5 %", 0.95, True, _met(strict, TARGETS[0])),
        ]
        if any(case.kind == "out_of_scope" for case in self.test):
            self._keep_beyond_facts(found, strict)

    def _keep_beyond_facts(self, found: Measured, strict: Sequence[Split]) -> None:
        chosen = [P_WRONG, *(name for name in RIVALS if name in self.scores(self.test))]
        calibration, test = self.scores(self.calibration), self.scores(self.test)
        found.tables["Thresholds that catch 90 % of the wrong facts and sums"] = (
            where_most_wrong_are_caught(
                {name: calibration[name] for name in chosen},
                {name: test[name] for name in chosen},
                self.calibration,
                self.test,
            )
        )
        found.tables["Prompts out of scope"] = part_by_part(self.routers, self.test, TARGETS[0])
        talk = _over(strict, lambda split: split.talk_escalated)
        beyond = _over(strict, lambda split: split.let_through)
        found.aims += [
            Aim("right small talk escalated", 0.02, False, talk),
            Aim("out of scope let through", 0.03, False, beyond),
        ]

    def _save(self, found: Measured, price: Usdc) -> None:
        scores = self.scores(self.test)
        simple = best_simple(Ranking(self.test, scores, seed=0))
        names = [P_WRONG, simple, PERPLEXITY, RULES, RANDOM]
        chosen = {name: scores[name] for name in dict.fromkeys(names) if name in scores}
        saving = Saving(self.test, chosen, seed=0)
        heading = f"Share right, of all questions; the larger model is right {LARGER_RIGHT:.0%}"
        found.tables[heading] = saving.curves()
        dollars = 1000 * price / ATOMIC_PER_DOLLAR
        heading = f"Escalated, and paid for 1,000 questions; ${dollars:.2f} where all are escalated"
        found.tables[heading] = saving.costs(price)
        found.verdicts.append(compared("APGR", P_WRONG, simple, saving.lead(P_WRONG, simple)))


def without_router(cases: Sequence[Case], why: str) -> Measured:
    """What is left to measure where none can be fitted: what needs no fitting."""
    ranking = Ranking(cases, {n: [one] for n, one in baselines(cases, seed=0).items()}, seed=0)
    tables = {
        ASKED: feasibility(cases),
        RANKED: [ranked_row(name, ranking.of(name)) for name in ranking.names],
    }
    verdicts = [f"No router can be fitted: {why}"]
    return Measured(
        tables, verdicts=verdicts + [on_feasibility(_error(cases), limit) for limit in TARGETS]
    )


def _error(cases: Sequence[Case]) -> float:
    return sum(not case.right for case in cases) / len(cases)


def _over(splits: Sequence[Split], figure) -> Interval:
    """Mean and range over the splits."""
    values = [figure(split) for split in splits]
    return Interval(sum(values) / len(values), min(values), max(values))


def _met(splits: Sequence[Split], limit: float) -> Interval:
    met = sum(split.meets(limit) for split in splits)
    return Interval(met / len(splits), *clopper_pearson(met, len(splits), confidence=0.95))
