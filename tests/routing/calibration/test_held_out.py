"""What is measured was not fitted to."""

from dataclasses import replace

import pytest
from worlds import outcome, router, world

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.evaluation import auroc, ece
from tinybrain.routing.calibration.gates import calibrated_gate, expected
from tinybrain.routing.calibration.held_out import cross_fitted, judged, scored_without_family


@pytest.fixture(scope="module")
def fitted():
    return router(world(600))


@pytest.fixture(scope="module")
def gate(fitted):
    return calibrated_gate(fitted)


def wrong(outcomes):
    return [not one.right for one in outcomes]


def test_rows_say_what_the_gate_does(gate):
    outcomes = world(300, seed=3)
    rows = judged(gate, outcomes)
    told = expected(gate, outcomes)
    assert 1 - sum(row.kept for row in rows) / 300 == pytest.approx(told.escalated)
    assert 1 - sum(row.admitted for row in rows) / 300 == pytest.approx(told.at_prefill)


def test_what_is_declined_is_the_deepest_doubt_however_sure_it_is(gate):
    sure = outcome(0.0, right=False)
    ((_, p, _, kept),) = judged(gate, [sure])
    assert (p < 0.5, kept) == (True, True)
    ((_, p, _, kept),) = judged(gate, [replace(sure, declined=True)])
    assert (p, kept) == (1.0, False)


def test_each_outcome_is_judged_by_a_fit_that_did_not_see_it(gate):
    outcomes, seen = world(300), []

    def fit(others):
        seen.append(others)
        return router(others)

    rows = cross_fitted(gate, outcomes, fit=fit, seed=1)
    assert [row.outcome for row in rows] == outcomes
    assert [len(others) for others in seen] == [240] * 5
    assert auroc([row.p_wrong for row in rows], wrong(outcomes)) > 0.8


def test_too_few_to_be_measured_so_are_refused_with_what_to_do(gate):
    with pytest.raises(ConfigError, match=r"at least 250 .* \"split\": \"test\""):
        cross_fitted(gate, world(249), fit=router, seed=1)


@pytest.mark.parametrize(("wrong", "enough"), [(25, True), (24, False)])
def test_each_fit_without_a_fifth_has_enough_of_each_label(gate, wrong, enough):
    outcomes = [outcome(0.1 + i % 7, right=i >= wrong, perplexity=5.0 + i) for i in range(300)]
    if enough:
        assert len(cross_fitted(gate, outcomes, fit=router, seed=1)) == 300
    else:
        with pytest.raises(ConfigError, match=r"24 wrong .* 25 of them answered right and as many"):
            cross_fitted(gate, outcomes, fit=router, seed=1)


def test_a_family_without_others_is_not_scored(fitted):
    outcomes = world(400, families="a")
    assert scored_without_family(fitted, outcomes, outcomes) is None
    assert scored_without_family(fitted, world(400), outcomes)


def test_a_family_is_scored_by_what_others_taught(fitted):
    outcomes = world(600, families="abc")
    foreign = [replace(o, right=not o.right) if o.family == "a" else o for o in outcomes]
    misled = router(foreign)
    scores = scored_without_family(misled, foreign, outcomes)
    own = [i for i, o in enumerate(outcomes) if o.family == "a"]
    labels = wrong([outcomes[i] for i in own])
    assert ece([scores[i] for i in own], labels) < 0.15
    assert ece([misled.opening.p_wrong(outcomes[i].signals) for i in own], labels) > 0.25
    declined = [replace(o, declined=True, right=False) for o in outcomes]
    assert set(scored_without_family(fitted, outcomes, declined)) == {1.0}
