import math

import pytest
import torch

from tinybrain.engine.request import Request
from tinybrain.engine.sampler import Sampler, sample


def sampler(*, temperature=1.0, seed=0, prompt=(), **options):
    request = Request(prompt, print, 10, temperature=temperature, seed=seed, **options)
    return Sampler(request, torch.device("cpu"))


def drawn(count=300, logits=None, **options):
    draw = sampler(**options)
    return {draw.sample(LOGITS if logits is None else logits).id for _ in range(count)}


LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
LONG = torch.randn(1024, generator=torch.Generator().manual_seed(1)) * 3


def test_temperature_zero_takes_the_likeliest_and_tells_the_raw_distribution():
    token = sampler(temperature=0).sample(LOGITS)
    assert token.id == 0
    assert token.logprob == pytest.approx(math.log(0.5))
    assert token.entropy == pytest.approx(1.75 * math.log(2))
    assert token.margin == pytest.approx(0.25)


@pytest.mark.parametrize("temperature", [1e-3, 1e-7, 1e-46])
def test_the_coldest_temperatures_take_the_likeliest(temperature):
    assert drawn(temperature=temperature) == {0}


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


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1e-9, {0}), (0.5, {0}), (0.51, {0, 1}), (0.76, {0, 1, 2}), (1, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_fewest_that_have_that_share(top_p, kept):
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    assert drawn(logits=logits, top_p=top_p) == kept


def test_top_p_alone_keeps_the_same_of_a_long_row_as_a_full_sort():
    shares, ids = LONG.softmax(-1).sort(descending=True)
    nucleus = ids[: int((shares.cumsum(-1) < 0.5).sum()) + 1].tolist()
    assert 3 < len(nucleus) < 20
    assert drawn(logits=LONG, top_p=0.5, count=2000) == set(nucleus)


@pytest.mark.parametrize(("min_p", "kept"), [(0, {0, 1, 2, 3}), (0.3, {0, 1}), (1, {0})])
def test_min_p_keeps_what_is_nearly_as_likely_as_the_likeliest(min_p, kept):
    assert drawn(min_p=min_p) == kept


def test_the_likeliest_is_never_left_out():
    assert drawn(top_p=1e-30, min_p=1, top_k=1, temperature=2) == {0}


def test_the_repetition_penalty_counts_prompt_and_answer_once_each():
    logits = torch.tensor([4.0, 3.9, 3.0, -1.0])
    draw = sampler(temperature=0, prompt=[0, 0], repetition_penalty=1.1)
    # 4 / 1.1 = 3.64 is less than 3.9; said too, 3.9 / 1.1 = 3.55 is less than 3.64.
    assert [draw.sample(logits).id for _ in range(3)] == [1, 0, 0]
    # Where the model is against a token, the penalty makes it more so.
    against = sampler(temperature=0, prompt=[0], repetition_penalty=2)
    assert against.sample(torch.tensor([-1.0, -1.5])).id == 1


def test_the_penalty_leaves_the_figures_alone():
    token = sampler(temperature=0, prompt=[0], repetition_penalty=9).sample(LOGITS + 3)
    assert (token.id, token.logprob) == (1, pytest.approx(math.log(0.25)))


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


def test_a_bias_is_added_before_the_temperature():
    draw = sampler(temperature=2, logit_bias=((0, 2.0),))
    zeros = sum(draw.sample(torch.tensor([0.0, 1.0])).id == 0 for _ in range(2000))
    assert zeros / 2000 == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.05)


@pytest.mark.parametrize(("bias", "kept"), [((0, -100.0), {1, 2, 3}), ((3, 100.0), {3})])
def test_a_bias_of_a_hundred_bans_or_forces(bias, kept):
    assert drawn(logit_bias=(bias,)) == kept


def test_a_bias_leaves_the_figures_alone():
    forced = sampler(logit_bias=((3, 100.0),), top_logprobs=1).sample(LOGITS)
    assert forced.logprob == pytest.approx(math.log(0.125))
    assert forced.margin == pytest.approx(0.25)
    assert forced.top == ((0, pytest.approx(math.log(0.5))),)


def test_the_likeliest_are_told_in_their_order_with_the_raw_logprobs():
    top = sampler(temperature=5, top_k=1, top_logprobs=20).sample(LONG).top
    logprobs, ids = LONG.log_softmax(-1).topk(20)
    assert [token for token, _ in top] == ids.tolist()
    assert [logprob for _, logprob in top] == pytest.approx(logprobs.tolist(), abs=1e-5)


def test_the_figures_of_a_long_row_are_those_of_its_softmax():
    token = sampler(temperature=0).sample(LONG)
    shares = LONG.softmax(-1)
    best, second = shares.topk(2).values.tolist()
    assert token.entropy == pytest.approx(torch.special.entr(shares).sum().item(), rel=1e-5)
    assert token.margin == pytest.approx(best - second, rel=1e-5)
    assert token.logprob == pytest.approx(math.log(best), rel=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1, "top_k": 1}])
def test_of_equals_the_greedy_choice_is_the_first(options):
    logits = torch.zeros(1024).index_fill(0, torch.tensor([130, 140, 900]), 1.0)
    assert sampler(**options).sample(logits).id == 130


OPTIONS = (
    {"temperature": 0, "top_logprobs": 2},
    {"top_k": 3},
    {},
    {"top_p": 0.9},
    {"top_k": 3, "top_p": 0.9, "min_p": 0.1},
    {"logit_bias": ((5, 9.0),), "repetition_penalty": 1.5, "prompt": (7,)},
)


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch():
    rows = LONG.roll(3)[None] + torch.randn(len(OPTIONS), 1024)
    alone = [sampler(seed=7, **options) for options in OPTIONS]
    together = [sampler(seed=7, **options) for options in OPTIONS]
    for _ in range(10):
        singly = [one.sample(row) for one, row in zip(alone, rows, strict=True)]
        batch = sample(together, rows, [None] * len(rows))
        assert [token.id for token in batch] == [token.id for token in singly]
        assert [len(token.top) for token in batch] == [2, 0, 0, 0, 0, 0]


def test_a_forced_token_is_not_drawn_and_has_the_figures_of_its_row():
    draws, untouched = sampler(seed=3), sampler(seed=3)
    (forced,) = sample([draws], LOGITS[None], [2])
    assert (forced.id, forced.forced) == (2, True)
    assert forced.logprob == pytest.approx(math.log(0.125))
    assert forced.margin == pytest.approx(0.25)
    again = [[one.sample(LONG) for _ in range(5)] for one in (draws, untouched)]
    assert again[0] == again[1]


def test_a_forced_token_counts_as_said():
    draws = sampler(temperature=0, prompt=[3], repetition_penalty=2)
    sample([draws], LOGITS[None] + 3, [0])
    assert draws.sample(LOGITS + 3).id == 1


def test_a_row_that_is_not_finite_fails_alone():
    rows = torch.stack([LOGITS, torch.full((4,), math.nan), LOGITS])
    samplers = [sampler(seed=1, top_k=2) for _ in rows]
    first, failed, last = sample(samplers, rows, [None, None, None])
    assert isinstance(failed, FloatingPointError)
    assert first == last == sampler(seed=1, top_k=2).sample(LOGITS)
