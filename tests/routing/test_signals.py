"""Doubt is measured on the worst token, the mean and the first."""

import json
import math

import pytest

from tinybrain.chat import Token
from tinybrain.routing.signals import Signals

NAN = math.nan


def test_signals_summarise_the_tokens():
    tokens = [Token("a", -0.1, 0.5, 0.9), Token("b", -0.7, 1.5, 0.2), Token("c", -0.4, 1.0, 0.4)]
    assert Signals.of(tokens, perplexity=12.5) == Signals(
        perplexity=12.5,
        first_entropy=0.5,
        min_logprob=-0.7,
        mean_logprob=pytest.approx(-0.4),
        max_entropy=1.5,
        min_margin=0.2,
        tokens=3,
    )


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [Token("a", NAN, NAN, NAN)],
        [Token("b", -0.1, 0.5, 0.9), Token("a", NAN, NAN, NAN)],
        [Token("a", NAN, NAN, NAN), Token("b", -0.1, 0.5, 0.9)],
    ],
)
def test_nothing_or_not_a_number_is_the_deepest_doubt(tokens):
    signals = Signals.of(tokens)
    assert (signals.min_logprob, signals.max_entropy) == (-math.inf, math.inf)
    assert signals.min_margin == 0


def test_tokens_that_the_model_did_not_choose_say_nothing_of_its_doubt():
    forced = Token("408", -9.0, 3.0, 0.1, forced=True)
    chosen = [Token("a", -0.1, 0.5, 0.9), Token("b", -0.7, 1.5, 0.2)]
    assert Signals.of([forced, *chosen, forced]) == Signals.of(chosen)


def test_what_is_recorded_is_json_even_of_the_deepest_doubt():
    recorded = Signals.of([], perplexity=3.0).recorded()
    assert json.loads(json.dumps(recorded, allow_nan=False)) == {
        "perplexity": 3.0,
        "first_entropy": None,
        "min_logprob": None,
        "mean_logprob": None,
        "max_entropy": None,
        "min_margin": 0.0,
        "tokens": 0,
    }
