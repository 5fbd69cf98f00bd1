"""Bounds on shares, against published and exactly computable values."""

import pytest

from tinybrain.routing.calibration.bounds import (
    at_most,
    clopper_pearson,
    clopper_pearson_upper,
    least_escalation,
)


@pytest.mark.parametrize(
    ("errors", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1)],
)
def test_the_exact_interval_is_that_of_the_tables(errors, n, low, high):
    assert clopper_pearson(errors, n, confidence=0.95) == pytest.approx((low, high), abs=1e-4)


def test_no_error_among_n_bounds_the_rate_by_the_root_of_what_may_be_mistaken():
    assert clopper_pearson_upper(0, 59, confidence=0.95) == pytest.approx(1 - 0.05 ** (1 / 59))


def test_the_bound_of_many_does_not_overflow_and_is_near_the_rate():
    assert 0.05 < clopper_pearson_upper(500, 10_000, confidence=0.95) < 0.054


def test_the_binomial_distribution_is_summed_up_to_k():
    assert at_most(1, 3, 0.5) == pytest.approx(0.5)
    assert (at_most(3, 3, 0.5), at_most(0, 3, 0.0), at_most(2, 3, 1.0)) == (1, 1, 0)


def test_a_model_that_is_wrong_more_often_than_allowed_must_escalate_the_difference():
    assert least_escalation(0.44, 0.05) == pytest.approx(0.39 / 0.95)
    assert least_escalation(0.04, 0.05) == 0
    assert least_escalation(0.04, 0.05, declined=0.02) == 0.02
