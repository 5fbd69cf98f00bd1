"""What of OpenAI's format decides how tokens are chosen."""

import json
from types import SimpleNamespace

import pytest

from tinybrain.api.openai import parse_request
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


def test_more_than_one_choice_is_refused_with_what_to_do_instead():
    assert parsed(n=1)
    with pytest.raises(InvalidRequest, match="send a request for each") as refusal:
        parsed(n=2)
    assert refusal.value.param == "n"
