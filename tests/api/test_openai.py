"""What of OpenAI's format decides how tokens are chosen."""

import json
from types import SimpleNamespace

from tinybrain.api.openai import parse_request
from tinybrain.chat import Sampling

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
    }
    assert parsed(**chosen, stop="END").sampling == Sampling(**chosen, stop=("END",))
    assert parsed(**chosen).local_sampling == parsed(**chosen).sampling


def test_without_a_temperature_only_the_small_model_is_greedy():
    request = parsed(top_p=0.5)
    assert request.local_sampling == Sampling(temperature=0, top_p=0.5)
    assert request.sampling == Sampling(top_p=0.5)
