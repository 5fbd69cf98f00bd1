"""Outcomes in parts: what is fitted on must not be what is measured on."""

import random
from collections.abc import Iterator, Sequence

from tinybrain.routing.calibration.outcomes import Outcome


def parted(
    outcomes: Sequence[Outcome], *, one_in: int, seed: int
) -> tuple[list[Outcome], list[Outcome]]:
    """One in so many outcomes of every family and kind, at random; and the others."""
    draw = random.Random(seed)  # noqa: S311  # nothing is secret here
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.family, outcome.kind), []).append(outcome)
    shuffled = []
    for _, group in sorted(groups.items()):
        draw.shuffle(group)
        shuffled += group
    others = [outcome for i, outcome in enumerate(shuffled) if i % one_in]
    return shuffled[::one_in], others


def families_left_out(outcomes: Sequence[Outcome]) -> Iterator[tuple[list[int], list[int]]]:
    """For each family the places of all others' outcomes, and of its own."""
    for family in sorted({outcome.family for outcome in outcomes}):
        own = [i for i, outcome in enumerate(outcomes) if outcome.family == family]
        others = [i for i, outcome in enumerate(outcomes) if outcome.family != family]
        yield others, own


def folds(
    outcomes: Sequence[Outcome], n: int, *, seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """For each of `n` random parts the places of all others' outcomes, and of its own.

    Each part has its share of the right, the wrong and the declined, give or take one.
    """
    places = list(range(len(outcomes)))
    random.Random(seed).shuffle(places)  # noqa: S311  # nothing is secret here
    places.sort(key=lambda i: (outcomes[i].declined, outcomes[i].right))
    for part in range(n):
        own = sorted(places[part::n])
        others = sorted(set(places) - set(own))
        yield others, own
