"""The gate lets through what is sure enough, and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.chat import Prefilled, Token
from tinybrain.routing.gate import Gate, Limit, Verdict, least_certain_token
from tinybrain.routing.signals import Signals


def signals(*logprobs):
    return Signals.of([Token("a", logprob, 1.0, 0.5) for logprob in logprobs])


def at(max_p_wrong):
    return Gate(opening=Limit(estimate=least_certain_token, max_p_wrong=max_p_wrong))


def test_uncalibrated_doubt_is_what_the_least_certain_token_lacks_to_certainty():
    assert least_certain_token(signals(math.log(0.9), math.log(0.25))) == pytest.approx(0.75)


@pytest.mark.parametrize(("probability", "released"), [(1.0, True), (0.5, True), (0.49, False)])
def test_doubt_at_the_threshold_is_released(probability, released):
    assert at(0.5).judge_opening(signals(0.0, math.log(probability))).passes is released


def test_the_most_cautious_gate_still_releases_certainty_and_the_boldest_releases_all():
    assert at(0.0).judge_opening(signals(0.0)).passes
    assert at(1.0).judge_opening(signals()).passes


@given(st.lists(st.floats()))
def test_uncalibrated_doubt_is_a_probability_whatever_the_model_reports(logprobs):
    assert 0 <= least_certain_token(signals(*logprobs)) <= 1


def test_a_prompt_is_admitted_unless_it_is_clearly_out_of_scope():
    usual, unusual = (Signals.of([], Prefilled(ppl, 4)) for ppl in (5.0, 5000.0))
    scope = Limit(estimate=lambda s: min(1.0, s.perplexity / 100), max_p_wrong=0.9)
    gate = Gate(prefill=scope)
    assert gate.judge_prompt(usual) == Verdict(0.05, passes=True)
    assert gate.judge_prompt(unusual) == Verdict(1.0, passes=False)
    assert Gate().judge_prompt(unusual).passes


def test_one_verdict_tells_p_wrong_and_what_follows_of_one_estimate():
    asked = []
    gate = Gate(opening=Limit(estimate=lambda s: asked.append(s) or 0.3, max_p_wrong=0.5))
    assert gate.judge_opening(signals(0.0)) == Verdict(0.3, passes=True)
    assert len(asked) == 1
    assert gate.judge_opening(signals(0.0), declined=True) == Verdict(1.0, passes=False)


def test_a_small_model_that_says_it_does_not_know_hands_the_question_on():
    gate = Gate(declines="I do not know")
    assert gate.is_declined("I do not know that.")
    assert not gate.is_declined("Well, I do not know")
    assert not Gate().is_declined("I do not know that.")
