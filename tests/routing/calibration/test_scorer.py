"""P(wrong) is a probability that never falls with more doubt."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tinybrain.chat import Token
from tinybrain.routing.calibration.scorer import Scorer, logistic
from tinybrain.routing.signals import Signals

SCORER = Scorer(intercept=1.0, weights={"min_logprob": 2.0})


def signals(*logprobs, entropy=None):
    return Signals.of([Token("a", logprob, entropy, entropy) for logprob in logprobs])


def test_it_is_the_logistic_function_of_the_weighted_doubts():
    expected = 1 / (1 + math.exp(-(1 + 2 * math.log(0.001 + 0.5))))
    assert SCORER.p_wrong(signals(-0.5)) == pytest.approx(expected)


@given(st.lists(st.floats(max_value=0), min_size=1), st.floats(max_value=0))
def test_a_less_certain_token_never_lowers_it(logprobs, another):
    before, after = SCORER.p_wrong(signals(*logprobs)), SCORER.p_wrong(signals(*logprobs, another))
    assert 0 <= before <= after <= 1


def test_a_signal_that_it_needs_and_is_not_told_is_the_deepest_doubt():
    scorer = Scorer(intercept=-9.0, weights={"max_entropy": 1.0})
    assert scorer.p_wrong(signals(-0.001, entropy=0.1)) < 0.01
    assert scorer.p_wrong(signals(-0.001)) == 1


@pytest.mark.parametrize("logit", [-1e5, -1.0, 0.0, 1.0, 1e5])
def test_the_logistic_function_does_not_overflow(logit):
    assert logistic(logit) == pytest.approx(1 - logistic(-logit))


@pytest.mark.parametrize(
    "weights", [{}, {"min_logprob": -0.1}, {"min_logprob": math.nan}, {"length": 1.0}]
)
def test_weights_are_of_known_features_and_never_negative(weights):
    with pytest.raises(ValidationError):
        Scorer(intercept=0.0, weights=weights)
