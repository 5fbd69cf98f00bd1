"""The gate lets through what is sure enough, and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.chat import Token
from tinybrain.routing.gate import Gate
from tinybrain.routing.signals import Signals


def signals(*logprobs):
    return Signals.of([Token("a", logprob, 1.0, 0.5) for logprob in logprobs])


def test_confidence_is_the_probability_of_the_least_certain_token():
    assert Gate(0.5, 8).confidence(signals(math.log(0.9), math.log(0.25))) == pytest.approx(0.25)


@pytest.mark.parametrize(("probability", "released"), [(1.0, True), (0.5, True), (0.49, False)])
def test_confidence_at_the_threshold_is_released(probability, released):
    assert Gate(0.5, 8).releases(signals(0.0, math.log(probability))) is released


def test_the_most_cautious_gate_still_releases_certainty_and_the_boldest_releases_all():
    assert Gate(1.0, 8).releases(signals(0.0))
    assert Gate(0.0, 8).releases(signals())


@given(st.lists(st.floats()))
def test_confidence_is_a_probability_whatever_the_model_reports(logprobs):
    assert 0 <= Gate(0.5, 8).confidence(signals(*logprobs)) <= 1
