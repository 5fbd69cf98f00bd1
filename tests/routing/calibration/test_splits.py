"""Nothing is on both sides of a split."""

from dataclasses import replace

import pytest
from worlds import world

from tinybrain.routing.calibration.splits import families_left_out, folds, parted


@pytest.mark.parametrize("one_in", [2, 3])
def test_parts_share_nothing_lose_nothing_and_have_their_share_of_every_family(one_in):
    outcomes = world(400)
    one, others = parted(outcomes, one_in=one_in, seed=3)
    assert sorted(map(id, one + others)) == sorted(map(id, outcomes))
    for family in "abcd":
        own = sum(o.family == family for o in others)
        assert sum(o.family == family for o in one) == pytest.approx(own / (one_in - 1), abs=1)


def test_a_seed_decides_the_parts():
    outcomes = world(100)
    first, again, another = (parted(outcomes, one_in=2, seed=seed) for seed in (3, 3, 4))
    assert first == again != another


def test_each_family_is_left_out_once():
    outcomes = world(40)
    left_out = []
    for others, own in families_left_out(outcomes):
        assert not {outcomes[i].family for i in others} & {outcomes[i].family for i in own}
        left_out += own
    assert sorted(left_out) == list(range(40))


def test_each_fold_has_its_share_of_every_label():
    outcomes = [
        replace(o, right=i % 13 > 0, declined=i % 17 == 0) for i, o in enumerate(world(300))
    ]
    for label in {(o.declined, o.right) for o in outcomes}:
        places = {i for i, o in enumerate(outcomes) if (o.declined, o.right) == label}
        counts = [len(places & set(own)) for _, own in folds(outcomes, 5, seed=1)]
        assert max(counts) - min(counts) <= 1


def test_each_outcome_is_in_one_fold():
    parts = list(folds(world(41), 5, seed=1))
    assert sorted(i for _, own in parts for i in own) == list(range(41))
    for others, own in parts:
        assert sorted(others + own) == list(range(41))
