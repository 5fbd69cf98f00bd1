"""A score becomes a probability, whatever it was before, and ranks as it did."""

import random

import numpy as np
import pytest
from worlds import outcome, world

from tinybrain.routing.calibration.evaluation import auroc, ece
from tinybrain.routing.calibration.fitting import fit_logistic
from tinybrain.routing.calibration.platt import fit_line, platt
from tinybrain.routing.calibration.scorer import Scorer

SCORER = Scorer(intercept=5.0, weights={"min_logprob": 0.3, "perplexity": 0.1})


def judged(scorer, outcomes):
    return [scorer.p_wrong(o.signals) for o in outcomes], [not o.right for o in outcomes]


def test_calibrating_keeps_the_ranking():
    outcomes = world()
    before, wrong = judged(SCORER, outcomes)
    after, _ = judged(platt(SCORER, outcomes), outcomes)
    assert auroc(after, wrong) == auroc(before, wrong)
    assert ece(after, wrong) < ece(before, wrong)
    assert sum(after) / len(after) == pytest.approx(0.5, abs=0.01)


def test_the_line_is_the_one_that_the_regression_finds():
    draw = random.Random(3)
    x = [draw.gauss(0, 3) for _ in range(400)]
    wrong = [draw.random() < 1 / (1 + 2.7183 ** -(0.7 * value - 1)) for value in x]
    (slope,), intercept = fit_logistic(
        np.array(x)[:, None], np.array(wrong, dtype=float), ridge=1e-6
    )
    assert fit_line(x, wrong) == pytest.approx((slope, intercept), abs=1e-4)


def test_doubt_that_tells_the_opposite_says_nothing_but_the_share():
    slope, intercept = fit_line([1.0, 2.0, 3.0, 4.0], [True, True, True, False])
    assert (slope, round(intercept, 3)) == (0.0, 1.099)


def test_a_slope_beyond_bounds_is_made_less_steep_and_parts_them_where_it_did():
    doubts = [0.5 + i * 1e-5 for i in range(200)]
    outcomes = [outcome(doubt, right=i < 100) for i, doubt in enumerate(doubts)]
    p_wrong, wrong = judged(platt(SCORER, outcomes), outcomes)
    assert [p > 0.5 for p in p_wrong] == wrong


def test_what_was_not_told_has_no_say():
    told = world()
    blind = outcome(1.0, right=True, entropy=None)
    scorer = Scorer(intercept=0.0, weights={"min_logprob": 1.0})
    by_entropy = Scorer(intercept=0.0, weights={"max_entropy": 1.0})
    assert platt(by_entropy, [blind] * 3) == by_entropy
    assert platt(scorer, told) != scorer


def test_where_all_are_right_there_is_nothing_to_fit():
    assert platt(SCORER, [outcome(0.1, right=True)] * 30) == SCORER
