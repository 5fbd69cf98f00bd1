"""How many questions a checkpoint answers rightly, greedily, by group and by family."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.questions import Question
from tinybrain.training.beyond import beyond_reply

GROUPS: tuple[tuple[str, Callable[[Question], bool]], ...] = (
    ("known facts", lambda q: q.kind == "fact" and q.known is True),
    ("withheld facts", lambda q: q.kind == "fact" and not q.known),
    ("sums up to 100, trained", lambda q: q.family == "sum" and q.known is True),
    ("sums up to 100, withheld", lambda q: q.family == "sum" and not q.known),
    ("larger sums, withheld or not", lambda q: q.family == "large_sum"),
    ("small talk", lambda q: q.kind == "talk"),
    ("out of scope", lambda q: q.kind == "out_of_scope"),
)


def summary(answered: Sequence[Draft]) -> dict[str, Any]:
    """Shares of right and of declined answers by group and by family, in JSON's types."""
    groups = {
        name: _by_wording(a for a in answered if belongs(a.question)) for name, belongs in GROUPS
    }
    families: dict[str, list[Draft]] = defaultdict(list)
    for one in answered:
        known = "known" if one.question.known else "withheld"
        families[f"{one.question.kind}/{one.question.family}/{known}"].append(one)
    return {
        "groups": groups,
        "families": {name: _by_wording(rows) for name, rows in sorted(families.items())},
    }


def markdown(result: dict[str, Any]) -> str:
    """The table of the model card."""
    lines = [
        "| group | n | right, trained wordings | right, new wordings | declined, new wordings |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["groups"].items():
        count = row["trained"]["n"] + row["new"]["n"]
        trained, new = row["trained"], row["new"]
        cells = (trained["right"], new["right"], new["declined"])
        lines.append(f"| {name} | {count} | {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _by_wording(answered: Iterable[Draft]) -> dict[str, Any]:
    rows = list(answered)
    return {
        wording: {
            "n": len(some),
            "right": _share(some, lambda a: a.is_right),
            "declined": _share(some, lambda a: a.is_declined(beyond_reply())),
        }
        for wording in ("trained", "new")
        for some in [[a for a in rows if a.question.wording == wording]]
    }


def _share(answered: Sequence[Draft], counts: Callable[[Draft], bool]) -> float | None:
    if not answered:
        return None
    return round(sum(map(counts, answered)) / len(answered), 4)


def _cell(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"
