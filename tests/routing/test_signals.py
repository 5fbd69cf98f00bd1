"""Doubt is measured on the worst token, the mean and the first."""

import json
import math

import pytest

from tinybrain.chat import Prefilled, Token
from tinybrain.routing.signals import CEILING, Signals

NAN = math.nan


def test_signals_summarise_the_tokens():
    tokens = [Token("a", -0.1, 0.5, 0.9), Token("b", -0.7, 1.5, 0.2), Token("c", -0.4, 1.0, 0.4)]
    assert Signals.of(tokens, Prefilled(12.5, 4, user_perplexity=20.5)) == Signals(
        perplexity=12.5,
        user_perplexity=20.5,
        first_entropy=0.5,
        min_logprob=-0.7,
        mean_logprob=pytest.approx(-0.4),
        max_entropy=1.5,
        mean_entropy=pytest.approx(1.0),
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
    assert signals.min_logprob == signals.mean_logprob == -math.inf
    assert signals.max_entropy in (math.inf, None)
    assert signals.min_margin in (0, None)


def test_tokens_that_the_model_did_not_choose_say_nothing_of_its_doubt():
    forced = Token("408", -9.0, 3.0, 0.1, forced=True)
    chosen = [Token("a", -0.1, 0.5, 0.9), Token("b", -0.7, 1.5, 0.2)]
    assert Signals.of([forced, *chosen, forced]) == Signals.of(chosen)


def test_what_is_recorded_is_json_even_of_the_deepest_doubt():
    recorded = Signals.of([], Prefilled(3.0, 4)).recorded()
    assert json.loads(json.dumps(recorded, allow_nan=False)) == {
        "perplexity": 3.0,
        "user_perplexity": None,
        "first_entropy": None,
        "min_logprob": None,
        "mean_logprob": None,
        "max_entropy": None,
        "mean_entropy": None,
        "min_margin": None,
        "tokens": 0,
    }


def test_what_was_recorded_is_read_even_of_the_deepest_doubt():
    measured = [Signals.of([]), Signals.of([Token("a", -0.1, 0.5, 0.9)], Prefilled(3.0, 4))]
    assert [Signals.read(each.recorded()) for each in measured] == measured


@pytest.mark.parametrize("measured", [NAN, math.inf])
def test_what_is_infinite_is_recorded_as_told_and_as_the_deepest_doubt(measured):
    tokens = [Token("a", -0.1, measured, 0.9)]
    recorded = Signals.of(tokens, Prefilled(measured, 4, user_perplexity=measured)).recorded()
    told = {name: value for name, value in recorded.items() if value is not None}
    assert recorded == told
    assert json.loads(json.dumps(told, allow_nan=False))["max_entropy"] == CEILING
    assert Signals.read(recorded).perplexity == math.exp(CEILING)


@pytest.mark.parametrize("recorded", [{"mood": 1}, {"min_logprob": "x"}, {"tokens": True}])
def test_what_is_no_signal_is_refused(recorded):
    with pytest.raises(ValueError, match=r"signal|number"):
        Signals.read(recorded)


def test_what_a_model_does_not_tell_is_unknown_not_guessed():
    signals = Signals.of([Token("a", -0.1, None, None), Token("b", -0.7, 0.5, None)])
    assert (signals.min_logprob, signals.tokens) == (-0.7, 2)
    assert signals.first_entropy is signals.max_entropy is signals.mean_entropy is None
    assert signals.min_margin is None
