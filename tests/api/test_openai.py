"""What of OpenAI's format decides how tokens are chosen."""

import json
from types import SimpleNamespace

import pytest

from tinybrain.api.bounds import MAX_CHOICES
from tinybrain.api.openai import parse_request
from tinybrain.api.requests import seeded
from tinybrain.chat import Sampling
from tinybrain.errors import InvalidRequest

SETTINGS = SimpleNamespace(upstream_model="larger")
MESSAGES = [{"role": "user", "content": "Hi"}]


def parsed(**fields):
    return parse_request(json.dumps({"messages": MESSAGES} | fields).encode(), SETTINGS)


def test_every_field_of_sampling_is_read():
    chosen = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "seed": 4,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert parsed(**chosen, stop="END").sampling == Sampling(**chosen, stop=("END",))
    assert parsed(**chosen).local_sampling == parsed(**chosen).sampling


def test_without_a_temperature_only_the_small_model_is_greedy():
    request = parsed(top_p=0.5)
    assert request.local_sampling == Sampling(temperature=0, top_p=0.5)
    assert request.sampling == Sampling(top_p=0.5)


def test_a_logit_bias_is_a_map_of_token_ids_as_json_writes_them():
    assert parsed(logit_bias={"50": -100, "7": 0.5}).sampling.logit_bias == ((50, -100), (7, 0.5))


@pytest.mark.parametrize(
    "bias",
    [{"word": 1}, {"-1": 1}, {"1": 100.5}, {"1": -101}, dict.fromkeys(map(str, range(301)), 1)],
)
def test_a_logit_bias_out_of_bounds_is_refused(bias):
    with pytest.raises(InvalidRequest, match="logit_bias"):
        parsed(logit_bias=bias)


def test_several_choices_differ_though_no_temperature_is_asked_for():
    request = parsed(n=3)
    assert (request.choices, request.local_sampling) == (3, request.sampling)
    assert parsed(n=1).local_sampling.temperature == 0
    assert parsed(n=3, temperature=0).local_sampling.temperature == 0


def test_each_choice_has_a_seed_of_its_own_if_one_is_given():
    sampling = parsed(n=3, seed=7).sampling
    assert [seeded(sampling, choice).seed for choice in range(3)] == [7, 8, 9]
    assert seeded(parsed(n=3).sampling, 2).seed is None


def test_the_largest_seed_has_one_for_each_choice_in_64_bits():
    largest = 2**63 - MAX_CHOICES - 1
    assert seeded(parsed(seed=largest).sampling, MAX_CHOICES - 1).seed < 2**63
    with pytest.raises(InvalidRequest, match="seed"):
        parsed(seed=largest + 1)


def test_more_choices_than_are_sold_at_once_are_refused_with_the_bound():
    assert parsed(n=MAX_CHOICES).choices == 8
    with pytest.raises(InvalidRequest, match="less than or equal to 8") as refusal:
        parsed(n=MAX_CHOICES + 1)
    assert refusal.value.param == "n"
