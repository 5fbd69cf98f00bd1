"""Prompts read in chunks and prefixes reused give what a prompt read whole and anew gives."""

import math

import pytest
from torch.nn import functional

from tinybrain.engine.request import Request
from tinybrain.engine.runner import Runner


def start(runner, prompt, **options):
    return runner.start(Request(prompt, print, 32, **options))


def read(runner, running):
    """Read the rest of a prompt; what is told of it."""
    while (logits := runner.prefill(running)) is None:
        pass
    told = running.prompt_read
    running.choose(logits)
    return told


def answer(runner, *batch):
    """The tokens of requests decoded together to their ends."""
    batch = sorted(batch, key=lambda running: running.slot.index)
    while batch[0].finish_reason is None:
        for running, logits in zip(batch, runner.decode(batch), strict=True):
            running.choose(logits)
    return [running.slot.tokens[-32:] for running in batch]


def surprise(golden, ids, begin=1, end=None):
    """Perplexity of ids[begin:end], read whole."""
    logits = golden.model.logits(golden.hidden(ids))
    return math.exp(
        functional.cross_entropy(logits[:-1], ids[1:], reduction="none")[
            begin - 1 : end and end - 1
        ].mean()
    )


@pytest.fixture
def runner(each):
    return Runner(each.model, slots=3, chunk=64)


@pytest.fixture
def prompt(each):
    return each.ids.tolist()


@pytest.mark.parametrize("chunk", [7, 199, 200, 256])
def test_chunks_of_any_size_give_nanochats_tokens_and_perplexity(each, prompt, chunk):
    runner = Runner(each.model, slots=1, chunk=chunk)
    running = start(runner, prompt)
    told = read(runner, running)
    assert (told.perplexity, told.reused) == (pytest.approx(each.perplexity, rel=1e-5), 0)
    assert answer(runner, running) == [each.greedy]


def test_the_second_turn_reads_only_what_is_new(each, runner, prompt):
    first = start(runner, prompt[:90])
    read(runner, first)
    answer(runner, first)
    runner.release(first)
    turn = [*first.slot.tokens, *prompt[:50]]
    second = start(runner, turn)
    told = read(runner, second)
    assert second.slot is first.slot
    assert (told.reused, second.computed) == (90 + 31, 51)
    assert told.perplexity == pytest.approx(surprise(each, each.ids.new_tensor(turn)), rel=1e-5)


def test_the_same_prompt_again_takes_one_token(each, runner, prompt):
    for reused in (0, 199, 199):
        running = start(runner, prompt)
        told = read(runner, running)
        assert (told.perplexity, told.reused) == (pytest.approx(each.perplexity, rel=1e-5), reused)
        assert answer(runner, running) == [each.greedy]
        runner.release(running)


def test_running_requests_share_the_beginning_of_their_prompts(each, runner, prompt):
    one, other = prompt, [*prompt[:150], *prompt[:20]]
    alone = Runner(each.model, slots=1, chunk=256)
    expected = start(alone, other)
    perplexity = read(alone, expected).perplexity
    first = start(runner, one)
    read(runner, first)
    second = start(runner, other)
    told = read(runner, second)
    assert (told.perplexity, told.reused) == (pytest.approx(perplexity, rel=1e-5), 149)
    assert answer(runner, first, second) == [each.greedy, *answer(alone, expected)]


def test_a_prefix_is_taken_before_its_slot_goes_to_another(golden):
    runner, prompt = Runner(golden.model, slots=2, chunk=64), golden.ids.tolist()
    first = start(runner, prompt[:100])
    read(runner, first)
    runner.release(first)
    second, third = start(runner, prompt[:90]), start(runner, [7, 7])
    assert third.slot is first.slot
    assert read(runner, second).reused == 89


def test_prompts_read_in_turns_are_read_once(each, runner, prompt):
    both = [start(runner, prompt) for _ in range(2)]
    for running in both:
        runner.prefill(running)
    for running in both:
        assert read(runner, running).perplexity == pytest.approx(each.perplexity, rel=1e-5)
    assert sum(running.computed for running in both) == 201
    assert answer(runner, *both) == [each.greedy] * 2


def test_a_prompt_given_up_halfway_serves_the_next(each, runner, prompt):
    given_up = start(runner, prompt)
    runner.prefill(given_up)
    runner.release(given_up)
    running = start(runner, prompt)
    told = read(runner, running)
    assert (told.perplexity, told.reused) == (pytest.approx(each.perplexity, rel=1e-5), 64)
    assert answer(runner, running) == [each.greedy]


def test_nothing_of_a_failed_request_is_reused_or_read(each, runner, prompt):
    failed = start(runner, prompt)
    runner.prefill(failed)
    runner._cache.store[:, :, failed.slot.index] = math.nan
    runner.discard(failed)
    # Beside a longer one, a shorter is decoded over what lies behind it in its slot.
    short, whole = start(runner, prompt[:30]), start(runner, prompt)
    assert short.slot is failed.slot
    assert [read(runner, running).reused for running in (short, whole)] == [0, 29]
    assert answer(runner, short, whole)[1] == each.greedy


def test_slots_taken_from_others_show_nothing_of_them(each, runner, prompt):
    for n in range(5):
        other = start(runner, prompt[n + 1 :])
        read(runner, other)
        runner.release(other)
    running = start(runner, prompt)
    assert read(runner, running).perplexity == pytest.approx(each.perplexity, rel=1e-5)
    assert answer(runner, running) == [each.greedy]


@pytest.mark.parametrize("span", [(150, 190), (0, 30), (60, 70)])
def test_the_perplexity_of_a_span_is_that_of_its_tokens_under_all_before(
    each, runner, prompt, span
):
    expected = pytest.approx(surprise(each, each.ids, max(span[0], 1), span[1]), rel=1e-5)
    for _ in range(2):
        running = start(runner, prompt, span=span)
        assert read(runner, running).span_perplexity == expected
        runner.release(running)


@pytest.mark.parametrize("span", [None, (0, 1), (5, 5)])
def test_a_span_without_predicted_tokens_has_no_perplexity(golden, span):
    runner = Runner(golden.model, slots=1, chunk=64)
    running = start(runner, golden.ids.tolist(), span=span)
    assert read(runner, running).span_perplexity is None
