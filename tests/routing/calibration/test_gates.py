"""A calibrated gate does what was asked for, and refuses to run where it would decide nothing."""

from dataclasses import replace

import pytest
from worlds import declining_world, outcome, router, world

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.gates import (
    LATER_P_WRONG,
    LOST_AT_PREFILL,
    calibrated_gate,
    expected,
    later_limit,
    prefill_limit,
    self_test,
)
from tinybrain.routing.calibration.outcomes import answered
from tinybrain.routing.calibration.scorer import Scorer
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.gate import Gate, Limit


@pytest.fixture(scope="module")
def fitted():
    return router(world(1200))


def test_the_escalation_rate_holds_on_another_day(fitted):
    gate = calibrated_gate(fitted, Target(escalation_rate=0.6))
    assert expected(gate, fitted.outcomes).escalated == pytest.approx(0.6, abs=0.02)
    assert expected(gate, world(1200, seed=5)).escalated == pytest.approx(0.6, abs=0.06)


def test_the_local_error_holds_on_another_day(fitted):
    gate = calibrated_gate(fitted, Target(max_local_error=0.2))
    found = expected(gate, world(1200, seed=5))
    assert 0 < found.local_error < 0.2
    assert found.escalated < 0.6


def test_at_the_prefill_at_most_the_stated_share_of_right_answers_is_lost(fitted):
    gate = calibrated_gate(fitted)
    right = [o for o in fitted.outcomes if o.right]
    lost = sum(not gate.judge_prompt(o.signals).passes for o in right) / len(right)
    assert 0 < lost <= LOST_AT_PREFILL
    assert expected(gate, fitted.outcomes).at_prefill > lost


def test_a_prompt_that_is_not_told_is_admitted_and_judged_on_its_opening(fitted):
    gate = calibrated_gate(fitted)
    told = outcome(0.0, right=True, perplexity=1e9).signals
    untold = replace(told, perplexity=None, user_perplexity=None)
    assert not gate.judge_prompt(told).passes
    assert gate.judge_prompt(untold).passes


def test_what_the_model_declines_is_escalated_however_sure_it_is(fitted):
    gate = calibrated_gate(fitted)
    sure = outcome(0.0, right=False)
    assert expected(gate, [sure]).escalated == 0
    assert expected(gate, [replace(sure, declined=True)]).escalated == 1


@pytest.fixture(scope="module")
def declining():
    return router(declining_world(1200), Target(escalation_rate=0.7))


def test_p_wrong_is_of_what_is_not_declined(declining):
    rows = answered(declining.outcomes)
    mean = sum(declining.opening.p_wrong(o.signals) for o in rows) / len(rows)
    assert mean == pytest.approx(sum(not o.right for o in rows) / len(rows), abs=0.001)


def test_what_is_declined_counts_as_escalated_and_moves_no_doubt(declining):
    gate = calibrated_gate(declining)
    assert gate.opening.max_p_wrong == pytest.approx(0.83, abs=0.05)
    assert expected(gate, declining.outcomes).escalated == pytest.approx(0.7, abs=0.02)
    assert expected(gate, declining_world(1200, seed=5)).local_error < 0.25


def test_what_is_declined_is_told_apart_where_a_target_is_refused(declining):
    with pytest.raises(ConfigError, match=r"declines 49\.\d% and answers 24\.\d% wrong"):
        calibrated_gate(declining, Target(max_local_error=0.001))
    with pytest.raises(ConfigError, match=r"5\d\.\d\d% of 1600 questions are escalated anyway"):
        calibrated_gate(declining, Target(escalation_rate=0.1))


def test_where_the_prompt_tells_nothing_every_prompt_is_admitted(fitted):
    assert prefill_limit(None, fitted.outcomes) is None
    wrong = [outcome(1.0, right=False)] * 3
    assert prefill_limit(Scorer(intercept=0.0, weights={"perplexity": 1.0}), wrong) is None


@pytest.mark.parametrize(("opening", "later"), [(0.1, LATER_P_WRONG), (0.7, 0.7)])
def test_an_answer_under_way_goes_on_until_it_is_likelier_wrong_than_right(opening, later):
    limit = Limit(estimate=lambda _: 0.6, max_p_wrong=opening)
    assert later_limit(limit).max_p_wrong == later
    assert later_limit(limit).estimate == limit.estimate


def test_the_routers_own_target_holds_where_none_is_set():
    made = router(world(1200), Target(escalation_rate=0.3))
    assert calibrated_gate(made) == calibrated_gate(made, Target(escalation_rate=0.3))


@pytest.mark.parametrize(("limit", "does"), [(-1.0, "escalates"), (2.0, "keeps")])
def test_a_gate_that_always_does_the_same_is_refused_with_what_to_do(limit, does):
    gate = Gate(opening=Limit(estimate=lambda _: 0.5, max_p_wrong=limit))
    with pytest.raises(ConfigError, match=f"{does} every one .* TINYBRAIN_MAX_LOCAL_ERROR"):
        self_test(gate, world(50))


def test_what_is_declined_or_refused_at_the_prompt_does_not_make_a_gate_that_decides():
    everything = Limit(estimate=lambda _: 0.5, max_p_wrong=1.0)
    known = Limit(estimate=lambda s: s.perplexity, max_p_wrong=100.0)
    declined = [replace(o, declined=True) for o in world(50)]
    with pytest.raises(ConfigError, match="keeps every one of the 50 openings"):
        self_test(Gate(opening=everything), [*world(50), *declined])
    refused = [outcome(0.5, right=False, perplexity=1e9)] * 50
    with pytest.raises(ConfigError, match="keeps every one of the 1 openings"):
        self_test(Gate(opening=everything, prefill=known), [outcome(0.1, right=True), *refused])


@pytest.mark.parametrize("rate", [0.0001, 0.9999])
def test_a_rate_that_comes_to_nothing_or_everything_does_not_start(fitted, rate):
    fitted = fitted.model_copy(update={"prefill": None})
    with pytest.raises(ConfigError, match="every one"):
        calibrated_gate(fitted, Target(escalation_rate=rate))
