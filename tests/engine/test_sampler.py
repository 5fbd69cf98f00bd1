import math

import pytest
import torch

from tinybrain.engine.sampler import Sampler


def sampler(*, temperature=1.0, top_k=0, seed=0):
    return Sampler(temperature=temperature, top_k=top_k, seed=seed, device=torch.device("cpu"))


LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()


def test_temperature_zero_takes_the_likeliest_and_tells_the_raw_distribution():
    token = sampler(temperature=0).sample(LOGITS)
    assert token.id == 0
    assert token.logprob == pytest.approx(math.log(0.5))
    assert token.entropy == pytest.approx(1.75 * math.log(2))
    assert token.margin == pytest.approx(0.25)


def test_figures_do_not_depend_on_temperature_or_top_k():
    token = sampler(temperature=5, top_k=1).sample(LOGITS)
    assert token == sampler(temperature=0).sample(LOGITS)


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.5), (0.5, 0.727)])
def test_tokens_come_as_often_as_the_tempered_distribution_says(temperature, share):
    draw = sampler(temperature=temperature)
    zeros = sum(draw.sample(LOGITS).id == 0 for _ in range(2000))
    assert zeros / 2000 == pytest.approx(share, abs=0.05)


def test_top_k_never_gives_another():
    draw = sampler(top_k=2)
    assert {draw.sample(LOGITS).id for _ in range(200)} == {0, 1}


def test_a_tiny_temperature_is_nearly_greedy():
    assert sampler(temperature=1e-30).sample(LOGITS).id == 0


def test_the_same_seed_draws_the_same_tokens():
    def draw(seed):
        one = sampler(seed=seed)
        return [one.sample(torch.zeros(100)).id for _ in range(20)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)
    assert draw(-1) == draw(2**63 - 1)


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(FloatingPointError):
        sampler(temperature=0).sample(torch.tensor([0.0, math.nan]))
