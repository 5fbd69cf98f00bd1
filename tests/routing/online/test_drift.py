"""The stability index is small on another day of the same, and large when the questions change."""

import math
import random

import pytest

from tinybrain.routing.online.drift import LIMIT, Reference


def day(n, *, shape=1.0, refused=0.1, seed=0):
    draw = random.Random(seed)
    return [math.inf if draw.random() < refused else draw.random() ** shape for _ in range(n)]


REFERENCE = Reference(day(2000))


def test_the_same_again_has_not_moved():
    assert REFERENCE.stability(day(2000)) == pytest.approx(0)


@pytest.mark.parametrize("seed", range(1, 21))
def test_200_questions_of_another_day_raise_no_alarm(seed):
    assert REFERENCE.stability(day(200, seed=seed)) < LIMIT


@pytest.mark.parametrize("changed", [{"shape": 0.3}, {"shape": 3.0}, {"refused": 0.5}])
def test_other_questions_do(changed):
    assert REFERENCE.stability(day(200, **changed)) > LIMIT


def test_one_value_alone_is_compared_too():
    assert Reference([0.5] * 100).stability([0.5] * 100) == pytest.approx(0)
    assert Reference([0.5] * 100).stability([0.9] * 100) > LIMIT


def test_what_is_escalated_unjudged_is_not_what_is_doubted_most():
    doubts = [n / 100 for n in range(100)]
    assert Reference(doubts).stability([*doubts[:90], *[math.inf] * 10]) > LIMIT
