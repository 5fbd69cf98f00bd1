"""What is fitted ranks, is calibrated, and gives way to the raw signal where that is better."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import outcome, router, world

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.evaluation import auroc, ece
from tinybrain.routing.calibration.features import RAW
from tinybrain.routing.calibration.fitting import fit_logistic, fit_opening, told


def judged(scorer, outcomes):
    return [scorer.p_wrong(o.signals) for o in outcomes], [not o.right for o in outcomes]


def test_the_maximum_of_the_likelihood_is_found():
    x = np.array([[0.0]] * 4 + [[1.0]] * 4)
    wrong = np.array([0, 0, 0, 1, 0, 1, 1, 1], dtype=float)
    (weight,), intercept = fit_logistic(x, wrong, ridge=1e-9)
    assert intercept == pytest.approx(np.log(1 / 3), abs=1e-3)
    assert weight == pytest.approx(2 * np.log(3), abs=1e-3)


def test_a_weight_that_would_be_negative_is_zero_and_the_others_do_without_it():
    x = np.array([[0.0, 1.0], [1.0, 0.0]] * 20 + [[1.0, 1.0]] * 2)
    wrong = np.array([0.0, 1.0] * 20 + [1.0, 0.0])
    weights, _ = fit_logistic(x, wrong, ridge=0.1)
    assert weights[0] > 0 == weights[1]


def test_labels_that_can_be_separated_do_not_run_away():
    weights, intercept = fit_logistic(np.array([[0.0], [1.0]]), np.array([0.0, 1.0]), ridge=1e-6)
    assert np.isfinite([*weights, intercept]).all()


def test_a_fitted_router_ranks_and_is_calibrated_on_a_world_it_has_not_seen():
    p_wrong, wrong = judged(router().opening, world(2000, seed=9))
    assert auroc(p_wrong, wrong) > 0.88
    assert ece(p_wrong, wrong) < 0.06


def test_the_raw_signal_is_kept_where_the_fit_does_not_travel_to_other_families():
    assert fit_opening(_misleading()).weights.keys() == {RAW}


def _misleading():
    """Perplexity tells right from wrong in two families, and the opposite in the third."""
    made = []
    for i in range(600):
        right, family = i % 2 == 0, i // 2 % 3
        doubt = (0.05 if right else 0.2) * (1 + i % 7)
        usual = right == (family != 0)
        made.append(
            outcome(doubt, right=right, family=str(family), perplexity=2.0 if usual else 90.0)
        )
    return made


def test_outcomes_of_one_family_are_fitted_by_the_raw_signal():
    assert router(world(400, families="a")).opening.weights.keys() == {RAW}


def test_signals_that_the_model_does_not_tell_are_not_fitted_on():
    assert set(told(world(20))) == {
        "perplexity",
        "user_perplexity",
        "min_logprob",
        "mean_logprob",
    }


def test_labels_that_nearly_one_doubt_tells_apart_are_fitted():
    near = [outcome(0.5 + i % 2 * 1e-7, right=i % 2 == 0) for i in range(300)]
    p_wrong, wrong = judged(router(near).opening, near)
    assert auroc(p_wrong, wrong) == 1


def test_more_outcomes_than_a_router_holds_are_refused_with_how_many_it_does():
    with pytest.raises(ConfigError, match="at most 15,000 questions"):
        router(world(2) * 7_501)


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        world(100),
        [outcome(0.1 * i, right=i > 5) for i in range(300)],
        [replace(o, declined=not o.right) for o in world(300)],
    ],
    ids=["none", "few", "hardly any wrong", "all wrong ones declined"],
)
def test_too_few_outcomes_are_refused_with_what_to_do(outcomes):
    with pytest.raises(ConfigError, match="Ask more questions"):
        router(outcomes or [outcome(1.0, right=True)])
