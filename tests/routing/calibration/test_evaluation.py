"""Measures of ranking and calibration, against values computed by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.routing.calibration.evaluation import (
    Bin,
    Point,
    aurc,
    auroc,
    auroc_within,
    bootstrap,
    ece,
    reliability,
    risk_coverage,
)


@pytest.mark.parametrize(
    ("scores", "wrong", "expected"),
    [
        ([1, 2, 3, 4], [False, False, True, True], 1.0),
        ([4, 3, 2, 1], [False, False, True, True], 0.0),
        ([1, 3, 2, 4], [False, False, True, True], 0.75),
        ([1, 1, 1, 1], [False, False, True, True], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([1, 2], [True, True], None),
    ],
)
def test_auroc_is_the_share_of_pairs_in_order(scores, wrong, expected):
    assert auroc(scores, wrong) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auroc_counts_pairs(rows):
    pairs = [(w, r) for w, bad in rows if bad for r, worse in rows if not worse]
    counted = sum((w > r) + (w == r) / 2 for w, r in pairs) / len(pairs) if pairs else None
    assert auroc([s for s, _ in rows], [w for _, w in rows]) == (
        None if counted is None else pytest.approx(counted)
    )


def test_within_groups_a_difference_between_groups_is_worth_nothing():
    scores = [0] * 10 + [1] * 10
    wrong = [False] * 5 + [True] * 5 + [False] * 5 + [True] * 5
    assert auroc_within(scores, wrong, ["a"] * 10 + ["b"] * 10) == 0.5
    assert auroc_within(scores, wrong, list(range(20))) is None


def test_the_risk_coverage_curve_keeps_ties_together():
    curve = risk_coverage([0.1, 0.2, 0.2, 0.9], [False, True, False, True])
    assert curve == [Point(0.1, 0.25, 0.0), Point(0.2, 0.75, 1 / 3), Point(0.9, 1.0, 0.5)]


def test_the_area_under_it_is_the_mean_risk():
    assert aurc([1, 2, 3, 4], [False, False, True, True]) == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert aurc([1, 1, 1, 1], [False, False, True, True]) == 0.5


def test_the_calibration_error_is_the_distance_from_the_diagonal():
    p_wrong = [0.05] * 10 + [0.95] * 10
    wrong = [False] * 9 + [True] + [True] * 10
    assert reliability(p_wrong, wrong) == [
        Bin(pytest.approx(0.05), 0.1, 10),
        Bin(pytest.approx(0.95), 1.0, 10),
    ]
    assert ece(p_wrong, wrong) == pytest.approx(0.05)
    assert ece([0.0, 1.0], [False, True]) == 0


def test_a_bootstrap_interval_holds_the_mean_and_is_the_same_again():
    rows = [0.0, 1.0] * 50
    low, high = bootstrap(lambda drawn: sum(drawn) / len(drawn), rows, seed=1)
    assert 0.35 < low < 0.5 < high < 0.65
    assert (low, high) == bootstrap(lambda drawn: sum(drawn) / len(drawn), rows, seed=1)


def test_draws_without_the_statistic_are_left_out_of_its_interval():
    def of_mixed(drawn):
        return sum(drawn) / len(drawn) if 0 < sum(drawn) < len(drawn) else None

    assert bootstrap(of_mixed, [0, 1], seed=1) == (0.5, 0.5)
    with pytest.raises(ValueError, match="all of 200 draws"):
        bootstrap(lambda _: None, [0, 1], seed=1)
