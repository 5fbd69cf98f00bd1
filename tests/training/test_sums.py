from itertools import islice
from random import Random

import pytest

from tinybrain.training.sums import Sum, sums


@pytest.mark.parametrize(
    ("one", "value"),
    [
        (Sum(37, "+", 48), "85"),
        (Sum(9, "-", 4), "5"),
        (Sum(12, "*", 11), "132"),
        (Sum(84, "//", 7), "12"),
    ],
)
def test_the_engines_calculator_does_them(one, value):
    assert one.value == value


def test_they_are_asked_in_signs_and_in_words():
    asked = {Sum(6, "*", 7).asked(Random(seed)) for seed in range(40)}
    assert asked == {"6 * 7", "6*7", "6 times 7", "6 x 7", "6x7"}


def test_values_are_whole_and_never_negative():
    for one in islice(sums(Random(1), largest=999), 500):
        assert one.value.isdigit(), one


def test_about_a_third_is_withheld():
    found = list(dict.fromkeys(islice(sums(Random(1), largest=999), 2000)))
    assert sum(one.is_withheld(1) for one in found) / len(found) == pytest.approx(1 / 3, abs=0.05)
