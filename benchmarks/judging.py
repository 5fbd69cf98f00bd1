"""What the figures say: which aims are reached, and where a simple signal wins.

Sentences are computed from the figures, so that none can be kinder than they are.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from doubts import SIGNALS
from keeping import P_WRONG, Split
from latency import Row
from ranking import Interval, Ranking

from tinybrain.routing.calibration.bounds import least_escalation

NEARLY_ALL = 0.85


class Aim(NamedTuple):
    """A figure that should be at least or at most so much."""

    figure: str
    limit: float
    at_least: bool
    measured: Interval

    @property
    def reached(self) -> str:
        """Whether it is, and whether all of the interval says so."""
        value, low, high = self.measured
        ends = [end >= self.limit if self.at_least else end <= self.limit for end in (low, high)]
        is_met = value >= self.limit if self.at_least else value <= self.limit
        return ("yes" if is_met else "no") + (
            "" if all(end == is_met for end in ends) else ", not shown"
        )

    def row(self) -> Row:
        sign = ">=" if self.at_least else "<="
        return {
            "figure": self.figure,
            "aim": f"{sign} {self.limit:g}",
            "measured": str(self.measured),
            "reached": self.reached,
        }


def best_simple(ranking: Ranking) -> str:
    """The signal that ranks best by itself, on these very cases."""
    signals = [name for name in ranking.names if name in SIGNALS]
    return max(signals, key=lambda name: ranking.of_seeds(name)[0])


def on_ranking(ranking: Ranking, simple: str, *, fitted: str = P_WRONG) -> str:
    return compared("AUROC", fitted, simple, ranking.lead(fitted, simple))


def compared(figure: str, fitted: str, simple: str, lead: Interval) -> str:
    """Who wins, if that is shown; `simple` is the best single signal."""
    if lead.low > 0:
        return f"{fitted} beats {simple}, the best single signal: {figure} +{lead}."
    if lead.high < 0:
        return f"A simple signal wins: {simple} beats {fitted}: {figure} {lead}."
    return f"{fitted} is not shown to be better or worse than {simple} alone: {figure} {lead}."


def on_keeping(kept: Mapping[tuple[float, str], Sequence[Split]]) -> list[str]:
    """For each target, P(wrong)'s gate beside those of one signal, where either keeps anything."""
    return [
        _pair(limit, name, kept[limit, P_WRONG], splits)
        for (limit, name), splits in kept.items()
        if name != P_WRONG and any(one.all.kept for one in (*kept[limit, P_WRONG], *splits))
    ]


def _pair(limit: float, name: str, ours: Sequence[Split], theirs: Sequence[Split]) -> str:
    pairs = list(zip(ours, theirs, strict=True))
    lead = fmean(our.all.share - their.all.share for our, their in pairs)
    more = sum(our.all.share > their.all.share for our, their in pairs)
    fewer = sum(our.all.share < their.all.share for our, their in pairs)
    said = (
        f"At a local error of {limit:.0%} {P_WRONG} keeps {lead:+.1%} beside {name}, "
        f"more in {more} and less in {fewer} of {len(pairs)} splits"
    )
    if ours[0].talk_escalated is not None:
        talk, their_talk = (
            fmean(one.talk_escalated for one in splits) for splits in (ours, theirs)
        )
        said += f", and escalates {talk:.1%} of right talk against {their_talk:.1%}"
    return f"{'A simple signal wins. ' if fewer > more else ''}{said}."


def on_feasibility(error: float, limit: float) -> str:
    """What any gate must escalate."""
    least = least_escalation(error, limit)
    said = (
        f"{error:.1%} of the answers are wrong: for a local error of {limit:.0%} even an ideal "
        f"gate must escalate {least:.1%}."
    )
    if least > NEARLY_ALL:
        said += " Nearly all must be escalated, whatever the signals."
    return said


def on_reaching(limit: float, splits: Sequence[Split]) -> str:
    """What this gate escalates, and whether it could be shown to do what it should."""
    escalated = 1 - fmean(split.all.share for split in splits)
    impossible = sum(not split.was_possible for split in splits)
    said = f"For a local error of {limit:.0%} {P_WRONG} escalates {escalated:.1%}."
    if impossible:
        said += (
            f" In {impossible} of {len(splits)} splits no threshold is shown to reach it, so the "
            "service would refuse to start, and nothing is kept: the signals are too weak, or the "
            "calibration questions too few."
        )
    if impossible == len(splits):
        said += " That nothing is let through means nothing, then."
    return said
