"""A threshold does what was asked for, or says that nothing can."""

import math
import random

import pytest
from pydantic import ValidationError

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.target import (
    MOST_THRESHOLDS,
    Target,
    for_escalation_rate,
    for_local_error,
)


def drawn(n, seed=0):
    """Scores that are true probabilities of being wrong."""
    draw = random.Random(seed)
    p_wrong = [draw.random() for _ in range(n)]
    return p_wrong, [draw.random() < p for p in p_wrong]


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5, 0.99])
def test_the_wanted_share_is_escalated(rate):
    p_wrong, _ = drawn(1000)
    threshold = for_escalation_rate(p_wrong, rate)
    assert sum(p > threshold for p in p_wrong) / 1000 == pytest.approx(rate, abs=0.01)


def test_what_is_surely_escalated_counts_and_is_never_kept():
    threshold = for_escalation_rate([0.1, 0.2, float("inf"), float("inf")], 0.5)
    assert threshold == 0.2


def test_a_rate_below_what_is_surely_escalated_is_refused_with_the_least_that_is():
    p_wrong = [0.1, 0.2, float("inf")]
    with pytest.raises(ConfigError, match=r"33\.33% of 3 questions .* Set it to 0\.334 or more"):
        for_escalation_rate(p_wrong, 0.3)
    assert for_escalation_rate(p_wrong, 0.334) == 0.2


@pytest.mark.parametrize("n", [100, 101, 199, 1000])
def test_few_thresholds_are_tried_the_boldest_among_them(n):
    tried = {for_escalation_rate([i / n for i in range(n)], (i + 0.5) / n) for i in range(n)}
    assert MOST_THRESHOLDS / 2 < len(tried - {-math.inf}) <= MOST_THRESHOLDS
    assert max(tried) == (n - 1) / n


def test_ties_are_kept_or_escalated_together():
    assert for_escalation_rate([0.1] * 9 + [0.9], 0.5) == 0.1


def test_the_error_of_what_is_kept_stays_below_the_limit_in_nearly_all_splits():
    violations = 0
    for seed in range(40):
        threshold = for_local_error(*drawn(1000, seed), limit=0.2)
        # of scores that are drawn evenly and true, half the threshold is wrong below it
        violations += threshold / 2 > 0.2
    assert violations <= 4


def test_more_error_allowed_is_more_kept():
    bolder = [for_local_error(*drawn(2000), limit=limit) for limit in (0.1, 0.2, 0.4)]
    assert bolder == sorted(bolder)
    assert len(set(bolder)) == 3


def test_a_confident_mistake_does_not_end_the_search():
    p_wrong = [(i / 1000) ** 3 for i in range(1000)]
    wrong = [i == 0 or i > 800 for i in range(1000)]
    assert for_local_error(p_wrong, wrong, limit=0.05) > 0.8**3


def test_an_unreachable_error_is_refused_with_the_least_possible_escalation():
    p_wrong, _ = drawn(400)
    with pytest.raises(ConfigError, match=r"cannot be reached.* 55\.6%"):
        Target(max_local_error=0.1).threshold(p_wrong, [i % 5 > 1 for i in range(400)])


def test_what_was_declined_is_told_apart_and_is_escalated_at_least():
    wrong = [i < 250 for i in range(400)]
    p_wrong = [float("inf")] * 200 + [0.5] * 200
    told = r"declines 50\.0% and answers 12\.5% wrong.* escalate 50\.0%"
    with pytest.raises(ConfigError, match=told):
        Target(max_local_error=0.3).threshold(p_wrong, wrong, declined=200)


def test_a_target_is_told_in_words():
    assert str(Target(escalation_rate=0.2)) == "20.0% of the questions are escalated"
    assert str(Target(max_local_error=0.05)).startswith("at most 5.0% of the answers that are kept")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"escalation_rate": 0.2, "max_local_error": 0.1},
        {"escalation_rate": 0},
        {"max_local_error": 1},
    ],
)
def test_a_target_is_one_thing_inside_its_bounds(fields):
    with pytest.raises(ValidationError):
        Target(**fields)
