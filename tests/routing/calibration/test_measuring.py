"""The report's figures, on worlds in which they are known."""

from dataclasses import replace

import pytest
from worlds import declining_world, outcome, router, world

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.bounds import least_escalation
from tinybrain.routing.calibration.gates import calibrated_gate, expected
from tinybrain.routing.calibration.held_out import Judged
from tinybrain.routing.calibration.measuring import (
    Prices,
    calibrate,
    costs,
    feasibility,
    gate_figures,
)
from tinybrain.routing.calibration.report import Report
from tinybrain.routing.calibration.target import Target

PRICES = Prices(answer=10_000, upstream=1_000)


def half(outcomes):
    return router(outcomes, Target(escalation_rate=0.5))


CALIBRATION, TEST = world(600, families="abc"), world(400, seed=9, families="abc")


@pytest.fixture(scope="module")
def made():
    return calibrate(CALIBRATION, TEST, fit=half, prices=PRICES, seed=0)


def test_the_report_is_of_its_router(made):
    report, gate = made.report, calibrated_gate(made)
    assert (report.checkpoint, report.target) == (made.checkpoint, made.target)
    assert report.threshold == pytest.approx(gate.opening.max_p_wrong, abs=1e-4)
    assert (report.measured_on, report.calibrated_on, report.n) == ("test", 600, 400)


def test_it_tells_what_the_gate_does_with_the_test(made):
    told = expected(calibrated_gate(made), TEST)
    figures = made.report.gate
    assert figures.escalated == pytest.approx(told.escalated, abs=1e-4)
    assert figures.local_error.value == pytest.approx(told.local_error, abs=1e-4)
    assert figures.local_error.low < told.local_error < figures.local_error.high
    assert figures.kept == round(400 * (1 - told.escalated))


def test_p_wrong_ranks_and_chance_does_not(made):
    report = made.report
    assert 0.85 < report.p_wrong.pooled.low < report.p_wrong.pooled.high < 1
    assert report.families_left_out.value == pytest.approx(report.p_wrong.pooled.value, abs=0.05)
    assert report.baselines["random"].pooled.value == pytest.approx(0.5, abs=0.08)
    assert report.p_wrong.aurc < report.baselines["random"].aurc
    assert "mean entropy" not in report.baselines  # which these worlds do not tell


def test_the_curve_ends_where_everything_is_kept(made):
    assert made.report.risk_coverage[-1] == (1.0, 0.5)
    assert len(made.report.risk_coverage) <= 60
    assert sum(n for _, _, n in made.report.reliability) == 400


def test_an_error_that_cannot_be_shown_is_said_with_the_least_escalation(made):
    tight, *_, loose = made.report.feasibility
    assert (tight.max_local_error, tight.escalated) == (0.01, None)
    wrong = sum(not o.right for o in made.outcomes) / len(made.outcomes)
    assert tight.least_escalation == pytest.approx(least_escalation(wrong, 0.01), abs=1e-4)
    assert loose.least_escalation < loose.escalated < 0.7


def test_what_is_declined_is_escalated_at_least():
    made = router(declining_world(), Target(max_local_error=0.6))
    declined = sum(o.declined for o in made.outcomes) / len(made.outcomes)
    assert feasibility(made)[-1].least_escalation == pytest.approx(declined, abs=1e-4)


def row(*, right, kept):
    return Judged(outcome(0.1, right=right), 0.1, admitted=True, kept=kept)


ROWS = [
    *[row(right=True, kept=True)] * 45,
    *[row(right=False, kept=True)] * 5,
    *[row(right=False, kept=False)] * 50,
]


def test_the_interval_of_the_local_error_is_of_95_percent_confidence():
    # as R tells of 5 in 50
    assert gate_figures(ROWS).local_error == (0.1, 0.0333, 0.2181)


def test_each_policy_answers_for_the_errors_that_it_keeps():
    gate, always, never = costs(ROWS, PRICES)
    assert (gate.escalated, gate.wrong) == (500, 50)
    assert (always.wrong, never.wrong) == (0, 550)


def test_money_is_counted_in_whole_units(made):
    gate, always, never = made.report.costs
    assert (gate.revenue, gate.cost) == (10_000_000, gate.escalated * 1_000)
    assert (always.escalated, always.wrong, always.profit) == (1_000, 0, 9_000_000)
    assert (never.cost, never.wrong, never.profit) == (0, 500, 10_000_000)


def test_what_is_declined_counts_as_escalated_and_is_no_calibration(made):
    declined = [replace(outcome(0.0, right=False), declined=True)] * 100
    report = calibrate(CALIBRATION, TEST + declined, fit=half, prices=PRICES, seed=0).report
    assert report.gate.declined == 0.2
    assert report.gate.local_error == made.report.gate.local_error
    assert report.p_wrong.pooled.value > report.p_wrong.answered.value
    assert report.p_wrong.answered == made.report.p_wrong.pooled
    assert (report.ece, report.reliability) == (made.report.ece, made.report.reliability)


def test_without_a_test_it_is_measured_by_cross_fitting():
    report = calibrate(world(300), [], fit=half, prices=PRICES, seed=0).report
    assert (report.measured_on, report.n) == ("cross-fitting", 300)
    assert report.p_wrong.pooled.value > 0.8


def test_too_few_of_a_label_to_cross_fit_are_refused_before_anything_is_fitted():
    def fit(_):
        raise AssertionError("it was fitted")

    outcomes = [outcome(0.1, right=i >= 22) for i in range(300)]
    with pytest.raises(ConfigError, match=r"22 wrong .*\"split\": \"test\""):
        calibrate(outcomes, [], fit=fit, prices=PRICES, seed=0)


def test_a_test_that_is_all_right_ranks_nothing():
    right = [one for one in TEST if one.right]
    report = calibrate(CALIBRATION, right, fit=half, prices=PRICES, seed=0).report
    assert (report.p_wrong.pooled, report.families_left_out) == (None, None)


def test_a_test_that_is_all_declined_measures_nothing():
    declined = [replace(one, declined=True, right=False) for one in TEST]
    with pytest.raises(ConfigError, match="declined all 400"):
        calibrate(CALIBRATION, declined, fit=half, prices=PRICES, seed=0)


def test_a_target_that_cannot_be_reached_is_refused():
    def fit(outcomes):
        return router(outcomes, Target(max_local_error=0.001))

    with pytest.raises(ConfigError, match=r"cannot be reached.*ideal gate"):
        calibrate(CALIBRATION, [], fit=fit, prices=PRICES, seed=0)


def test_it_comes_back_from_the_routers_file(made, tmp_path):
    made.write(tmp_path / "router.json")
    again = type(made).read(tmp_path / "router.json")
    assert again.report == made.report
    assert Report.model_validate_json(made.report.model_dump_json()) == made.report
