"""Decoding a step ahead gives what decoding step by step gives, only later."""

import math

import pytest

from tinybrain.engine.request import Request
from tinybrain.engine.runner import Runner


def start(runner, prompt, max_tokens=20, **options):
    running = runner.start(Request(prompt, print, max_tokens, **options))
    while running.is_reading:
        runner.prefill(running)
    return running


def decode(runner, *batch):
    """The tokens of each request up to its end, and how many steps that took."""
    told, steps = {running: [] for running in batch}, 0
    while going := [running for running in batch if not (running.finish_reason or running.error)]:
        going.sort(key=lambda running: running.slot.index)
        for running, tokens in zip(going, runner.decode(going), strict=True):
            told[running] += tokens
        steps += 1
    return list(told.values()), steps


@pytest.fixture
def both(each):
    return [Runner(each.model, slots=5, chunk=64, pipelined=on) for on in (False, True)]


@pytest.fixture
def both_of_golden(golden):
    return [Runner(golden.model, slots=5, chunk=64, pipelined=on) for on in (False, True)]


def close(one, other):
    """Tokens are the same, their figures nearly."""
    assert [token.id for token in one] == [token.id for token in other]
    assert [token.forced for token in one] == [token.forced for token in other]
    for name in ("logprob", "entropy", "margin"):
        expected = [getattr(token, name) for token in other]
        assert [getattr(token, name) for token in one] == pytest.approx(expected, abs=2e-4)


def test_every_variant_gives_nanochats_tokens(each, both):
    running = start(both[1], each.ids.tolist(), 32)
    (told,), steps = decode(both[1], running)
    assert running.slot.tokens[200:] == each.greedy
    assert (len(told), steps) == (31, 32)


MIXED = (
    ((0, 200), {"temperature": 0}),
    ((3, 10), {"temperature": 1.0, "seed": 1}),
    ((40, 170), {"temperature": 0.8, "top_k": 50, "seed": 2}),
    ((7, 8), {"temperature": 1.2, "top_k": 200, "top_p": 0.9, "seed": 3}),
    ((90, 120), {"temperature": 0.9, "min_p": 0.1, "seed": 4}),
)


def test_a_batch_of_different_lengths_and_options_gets_its_tokens_and_figures(each, both):
    ids = each.ids.tolist()
    found = []
    for runner in both:
        batch = [start(runner, ids[slice(*part)], 25 + n, **o) for n, (part, o) in enumerate(MIXED)]
        found.append(decode(runner, *batch)[0])
    for one, other in zip(*found, strict=True):
        close(one, other)


@pytest.mark.parametrize(
    "options",
    [{"top_p": 0.9}, {"logit_bias": ((5, 3.0),)}, {"repetition_penalty": 1.2}, {"top_logprobs": 3}],
)
def test_a_request_that_only_the_host_can_choose_for_changes_nothing(
    both_of_golden, golden, options
):
    ids, found = golden.ids.tolist(), []
    for runner in both_of_golden:
        plain = start(runner, ids[:150], 30, temperature=1.0, seed=1)
        other = start(runner, ids[5:50], 10, temperature=0.7, seed=2, **options)
        found.append(decode(runner, plain, other)[0])
    for one, other in zip(*found, strict=True):
        close(one, other)
    assert [len(token.top) for token in found[0][1]] == [len(token.top) for token in found[1][1]]


def test_requests_join_and_leave_while_others_go_on(both_of_golden, golden):
    ids, found = golden.ids.tolist(), []
    for runner in both_of_golden:
        told, batch, left = {}, [], []
        for step in range(40):
            if step % 4 == 0 and runner.free_slots:
                batch.append(
                    start(runner, ids[step : 3 * step + 2], 9, temperature=1.0, seed=step, top_k=9)
                )
            batch.sort(key=lambda running: running.slot.index)
            for running, tokens in zip(batch, runner.decode(batch), strict=True):
                told.setdefault(running.request.seed, []).extend(tokens)
            for running in [running for running in batch if running.finish_reason]:
                runner.release(running)
                batch.remove(running)
                left.append(running.request.seed)
        found.append([told[seed] for seed in sorted(left)])
    for one, other in zip(*found, strict=False):
        close(one, other)
    assert min(map(len, found)) > 5


def test_a_stop_token_ends_the_answer_and_nothing_behind_it_is_told(golden, both_of_golden):
    stop = next(token for token in golden.greedy if golden.greedy.index(token) == 3)
    running = start(both_of_golden[1], golden.ids.tolist(), stop_tokens=frozenset([stop]))
    other = start(both_of_golden[1], golden.ids.tolist()[:50], 12)
    told, _ = decode(both_of_golden[1], running, other)
    assert [token.id for token in told[0]] == golden.greedy[1:4]
    assert (running.finish_reason, len(told[1])) == ("stop", 11)


def test_an_answer_ends_with_its_context(golden, both_of_golden):
    running = start(both_of_golden[1], golden.ids.tolist(), 1000)
    decode(both_of_golden[1], running)
    assert (running.finish_reason, len(running.slot.tokens)) == ("length", 256)


def test_what_an_ended_request_leaves_serves_the_next(golden, both_of_golden):
    runner, ids = both_of_golden[1], golden.ids.tolist()
    stop = next(token for token in golden.greedy if golden.greedy.index(token) == 3)
    first = start(runner, ids, stop_tokens=frozenset([stop]))
    decode(runner, first)
    runner.release(first)
    turn = [*first.slot.tokens, *ids[:20]]
    second, fresh = start(runner, turn), start(Runner(golden.model, slots=1, chunk=256), turn)
    assert (second.slot is first.slot, second.computed) == (True, 21)
    assert second.prompt_read.perplexity == pytest.approx(fresh.prompt_read.perplexity, rel=1e-5)


class Following:
    """Forces tokens after each of the first tokens that are odd."""

    def __init__(self):
        self.times = 3

    def __call__(self, token):
        if token % 2 == 0 or not self.times:
            return []
        self.times -= 1
        return [6, 8]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}])
def test_tokens_that_must_follow_do_and_no_draw_is_lost(both_of_golden, golden, options):
    ids, found = golden.ids.tolist(), []
    for runner in both_of_golden:
        following = start(runner, ids, 30, follow=Following(), **options)
        beside = start(runner, ids[:70], 30, temperature=1.0, top_k=40, seed=9)
        found.append(decode(runner, following, beside)[0])
    for one, other in zip(*found, strict=True):
        close(one, other)
    assert sum(token.forced for token in found[1][0]) == 6


def test_what_fails_in_following_fails_alone(both_of_golden, golden):
    ids = golden.ids.tolist()
    bad = start(
        both_of_golden[1], ids, follow=lambda token: [] if token == golden.greedy[0] else 1 / 0
    )
    good = start(both_of_golden[1], ids)
    told, _ = decode(both_of_golden[1], bad, good)
    assert (told[0], type(bad.error), good.error) == ([], ZeroDivisionError, None)
    assert good.slot.tokens[200:] == golden.greedy[:20]


def test_a_row_that_is_not_finite_fails_alone(both_of_golden, golden):
    runner = both_of_golden[1]
    bad, good = start(runner, golden.ids.tolist()[:9]), start(runner, golden.ids.tolist())
    runner._cache.store[:, :, bad.slot.index] = math.nan
    told, _ = decode(runner, bad, good)
    assert (told[0], type(bad.error)) == ([], FloatingPointError)
    assert good.slot.tokens[200:] == golden.greedy[:20]


def test_a_failed_step_is_forgotten(both_of_golden, golden, golden_model):
    runner, ids = both_of_golden[1], golden.ids.tolist()
    failed = start(runner, ids)
    runner.decode([failed])

    def fail(module, inputs):
        raise MemoryError("no memory")

    with golden_model.register_forward_pre_hook(fail), pytest.raises(MemoryError):
        runner.decode([failed])
    runner.discard(failed)
    again = start(runner, ids)
    decode(runner, again)
    assert again.slot.tokens[200:] == golden.greedy[:20]
