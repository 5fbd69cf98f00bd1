"""A day's budget buys as much as it can, and what is most in doubt."""

import math
import random
from dataclasses import replace

import pytest

from tinybrain.payments.records import Spending
from tinybrain.routing.online.pacing import DAY_S, affordable, lowest_threshold

DAY = Spending(
    total=500_000, audits=0, doubted=500_000, others=0, doubts=500, judged=1_000, seconds=DAY_S
)


def test_the_share_is_what_the_budget_buys_of_the_judged():
    assert affordable(DAY, 250_000) == pytest.approx(0.25)


def test_what_is_bought_for_other_reasons_comes_first():
    assert affordable(replace(DAY, others=100_000), 250_000) == pytest.approx(0.15)
    assert affordable(replace(DAY, others=400_000), 250_000) == 0


def test_a_young_service_is_told_on_to_a_day():
    young = replace(DAY, seconds=DAY_S / 4)
    assert affordable(young, 1_000_000) == pytest.approx(affordable(DAY, 250_000))


def test_a_service_of_minutes_counts_as_one_of_an_hour():
    assert affordable(replace(DAY, seconds=5.0), 250_000) == affordable(
        replace(DAY, seconds=3_600.0), 250_000
    )


def test_where_everything_goes_to_other_reasons_no_doubt_is_affordable_whatever_it_costs():
    spent = replace(DAY, others=250_000, doubted=0, doubts=0)
    assert affordable(spent, 250_000) == 0


@pytest.mark.parametrize("unknown", [{"doubts": 0, "doubted": 0}, {"doubted": 0}, {"judged": 0}])
def test_where_nothing_was_paid_for_doubt_nothing_is_said(unknown):
    assert affordable(replace(DAY, **unknown), 250_000) is None


def test_no_more_than_the_share_is_above_the_threshold_and_no_lower_one_will_do():
    draw = random.Random(0)
    p_wrong = [round(draw.random(), 2) for _ in range(300)] + [math.inf] * 100
    found = lowest_threshold(p_wrong, 0.2)
    above = [p for p in p_wrong if found < p < math.inf]
    assert len(above) <= 80 < sum(found <= p < math.inf for p in p_wrong)


def test_a_share_that_covers_every_doubt_needs_no_threshold():
    assert lowest_threshold([0.1, 0.9, math.inf], 0.7) == -math.inf
