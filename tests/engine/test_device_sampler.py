"""`choose` is to choose what `sampler.py`, the definition, chooses."""

import pytest
import torch

from tinybrain.engine.device_sampler import (
    Choice,
    choice_for,
    choose,
    is_greedy,
    is_plain,
    options,
)
from tinybrain.engine.request import Request
from tinybrain.engine.sampler import Sampler, figures_of, sample, sampled

PLAIN = (
    {},
    {"temperature": 0},
    {"temperature": 1e-9, "top_k": 5},
    {"temperature": 0.7, "top_k": 1},
    {"temperature": 0.01},
    {"temperature": 2, "top_k": 50},
    {"top_k": 200},
    {"top_k": 50, "top_p": 0.5},
    {"top_k": 9, "min_p": 0.2},
    {"min_p": 0.05},
    {"temperature": 0, "top_p": 0.5},
)
ROWS = torch.randn(len(PLAIN), 1024, generator=torch.Generator().manual_seed(1)) * 3


def sampler(*, seed=7, **wanted):
    request = Request((), print, 10, **{"temperature": 1.0, "seed": seed} | wanted)
    return Sampler(request, torch.device("cpu"))


def chosen(samplers, logits):
    """The tokens that are chosen by tensors alone."""
    requests = [one.request for one in samplers]
    draws = [0.0 if is_greedy(one.request) else one.draw() for one in samplers]
    ids = choose(
        logits,
        torch.tensor([options(request) for request in requests]),
        torch.tensor(draws, dtype=torch.float64),
        choice_for(samplers),
    )
    return [sampled(row) for row in figures_of(logits, ids).tolist()]


def test_each_request_gets_the_tokens_and_figures_that_it_gets_alone():
    together = [sampler(**wanted) for wanted in PLAIN]
    alone = [sampler(**wanted) for wanted in PLAIN]
    for shift in range(30):
        logits = ROWS.roll(shift, 0)
        expected = [
            sample([one], row[None], [None])[0] for one, row in zip(alone, logits, strict=True)
        ]
        assert chosen(together, logits) == expected


@pytest.mark.parametrize("wanted", PLAIN, ids=str)
def test_it_needs_nobody_else_for_that(wanted):
    one, same = sampler(**wanted), sampler(**wanted)
    for logits in ROWS:
        assert chosen([one], logits[None]) == sample([same], logits[None], [None])


@pytest.mark.parametrize(
    ("wanted", "choice"),
    [
        ([{"temperature": 0}, {"top_k": 1}], Choice()),
        ([{"top_k": 50}, {"top_k": 2}], Choice(64)),
        ([{"top_k": 65}], Choice(256)),
        ([{}, {"temperature": 0, "top_k": 200}], Choice(anything=True)),
        ([{}, {"top_k": 64}], Choice(64, anything=True)),
    ],
)
def test_no_more_is_computed_than_a_batch_needs(wanted, choice):
    assert choice_for([sampler(**one) for one in wanted]) == choice


@pytest.mark.parametrize(
    "wanted",
    [
        {"top_p": 0.9},
        {"top_k": 257},
        {"top_k": -1},
        {"top_logprobs": 1},
        {"logit_bias": ((5, 1.0),)},
        {"repetition_penalty": 1.1},
    ],
)
def test_what_it_cannot_choose_it_says(wanted):
    assert not is_plain(sampler(**wanted).request)
    assert all(is_plain(sampler(**plain).request) for plain in PLAIN)


def test_a_row_that_is_not_finite_fails_alone():
    logits = torch.stack([ROWS[0], torch.full((1024,), torch.nan), ROWS[0]])
    first, failed, last = chosen([sampler(top_k=5) for _ in logits], logits)
    assert isinstance(failed, FloatingPointError)
    assert first == last
