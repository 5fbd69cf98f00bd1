"""Nothing is on both sides of a split."""

from dataclasses import replace

from worlds import world

from tinybrain.routing.calibration.splits import families_left_out, folds, halves


def test_halves_share_nothing_lose_nothing_and_have_half_of_every_family():
    outcomes = world(400)
    one, other = halves(outcomes, seed=3)
    assert sorted(map(id, one + other)) == sorted(map(id, outcomes))
    for family in "abcd":
        assert sum(o.family == family for o in one) == sum(o.family == family for o in other)


def test_a_seed_decides_the_halves():
    outcomes = world(100)
    assert halves(outcomes, seed=3) == halves(outcomes, seed=3) != halves(outcomes, seed=4)


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
