"""Doubts are finite numbers that grow with doubt."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.chat import Prefilled, Token
from tinybrain.routing.calibration.features import FEATURES, PREFILL, RAW
from tinybrain.routing.signals import Signals

SURE = Signals.of([Token("a", -0.1, 0.2, 0.9)], Prefilled(3.0, 4, user_perplexity=4.0))
MORE = {
    "perplexity": 30.0,
    "user_perplexity": 40.0,
    "first_entropy": 2.0,
    "min_logprob": -2.0,
    "mean_logprob": -2.0,
    "max_entropy": 2.0,
    "mean_entropy": 2.0,
    "min_margin": 0.1,
}


@pytest.mark.parametrize("name", FEATURES)
def test_more_doubt_is_a_higher_number(name):
    unsure = replace(SURE, **{name: MORE[name]})
    assert FEATURES[name](unsure) > FEATURES[name](SURE)


@given(st.floats(), st.floats(), st.floats(), st.floats())
def test_every_feature_is_finite_whatever_the_model_reports(logprob, entropy, margin, perplexity):
    signals = Signals.of(
        [Token("a", logprob, entropy, margin)],
        Prefilled(perplexity, 4, user_perplexity=perplexity),
    )
    assert all(math.isfinite(feature(signals)) for feature in FEATURES.values())


def test_what_is_not_told_stays_unknown():
    signals = Signals.of([Token("a", -0.1, None, None)])
    told = {name for name, feature in FEATURES.items() if feature(signals) is not None}
    assert told == {"min_logprob", "mean_logprob"}


def test_the_features_that_others_go_by_exist():
    assert {*PREFILL, RAW} <= FEATURES.keys()
