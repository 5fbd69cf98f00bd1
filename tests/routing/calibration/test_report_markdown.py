"""The report in words says what the figures say."""

import pytest
from worlds import router, world

from tinybrain.routing.calibration.measuring import Prices, calibrate
from tinybrain.routing.calibration.report_markdown import in_words, markdown


@pytest.fixture(scope="module")
def report():
    prices = Prices(answer=10_000, upstream=1_000)
    return calibrate(world(600), world(400, seed=9), fit=router, prices=prices, seed=0).report


def test_the_threshold_has_a_meaning(report):
    words = in_words(report)
    assert f"at most {report.threshold:.3f}, so that 50.0% of the questions" in words
    assert f"{report.costs[0].escalated} are escalated" in words
    assert f"{report.gate.local_error.value:.1%} are wrong" in words
    assert "400 questions of the test" in words


def test_what_the_threshold_was_chosen_on_is_said(report):
    assert "chosen on two thirds" not in in_words(report)
    crossed = report.model_copy(update={"measured_on": "cross-fitting"})
    assert "the threshold was chosen on two thirds of them" in in_words(crossed)


def test_the_interval_over_families_is_said_to_be_of_these(report):
    assert "not for other families" in markdown(report)


def test_every_figure_stands_in_the_tables(report):
    text = markdown(report)
    assert f"| P(wrong) | {report.p_wrong.pooled.value:.3f} (" in text
    assert "| random | " in text
    assert "| 1.0% | cannot be shown | 49.5% |" in text
    assert "| always escalate | 1,000 | 0 | $10.00 | $1.00 | $9.00 |" in text
    assert "None" not in text


def test_what_is_not_known_is_said(report):
    unknown = report.model_copy(update={"families_left_out": None})
    assert "has not seen: AUROC unknown" in markdown(unknown)
