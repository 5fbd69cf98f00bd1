"""Prompts read in chunks, prefixes reused and drafts give what a plain run of the model gives."""

import math

import pytest
from torch.nn import functional

from tinybrain.engine import kv_cache, rotary
from tinybrain.engine.checkpoint import read_checkpoint
from tinybrain.engine.drafts import Drafts
from tinybrain.engine.fast_gpt import FastGPT
from tinybrain.engine.kernels import FP16, INT8
from tinybrain.engine.native_kernels import NATIVE_HALF, NATIVE_INT8
from tinybrain.engine.precision import works
from tinybrain.engine.request import Request
from tinybrain.engine.runner import Runner
from tinybrain.engine.serving_weights import FromCheckpoint


def start(runner, prompt, max_tokens=32, **options):
    return runner.start(Request(prompt, print, max_tokens, **options))


def read(runner, running):
    """Read the rest of a prompt; what is told of it."""
    while running.is_reading:
        runner.prefill(running)
    return running.prompt_read


def answer(runner, *batch):
    """The tokens of requests decoded together to their ends."""
    batch = sorted(batch, key=lambda running: running.slot.index)
    while batch[0].finish_reason is None:
        runner.decode(batch)
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


@pytest.fixture
def prompt_of_golden(golden):
    return golden.ids.tolist()


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


class Scripted(Drafts):
    """Proposes the rest of an answer written down beforehand."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def propose(self, most):
        return self.answer[len(self._tokens) :][:most]


@pytest.fixture
def speculating(golden):
    return Runner(golden.model, slots=3, chunk=256, speculative_rows=8)


@pytest.fixture
def running(speculating, golden):
    """Starts and reads a request whose drafts are an answer's tokens."""

    def start_with(drafts, prompt=None, **options):
        running = start(speculating, prompt or golden.ids.tolist(), **options)
        running.drafts = Scripted(drafts)
        read(speculating, running)
        return running

    return start_with


def steps(runner, *batch):
    """The tokens of each decode step of requests to the end of the first, their ids alone."""
    told = []
    while all(running.finish_reason is None for running in batch):
        told.append([[token.id for token in tokens] for tokens in runner.decode(batch)])
    return told


def test_drafts_give_nanochats_tokens_in_fewer_steps(each, prompt):
    runner = Runner(each.model, slots=1, chunk=256, speculative_rows=8)
    running = start(runner, prompt)
    read(runner, running)
    assert len(steps(runner, running)) < 31
    assert running.slot.tokens[200:] == each.greedy


@pytest.mark.parametrize(
    "options",
    [{"top_k": 20}, {"top_p": 0.95}, {"repetition_penalty": 1.05}, {"temperature": 0}],
)
def test_a_seed_gives_the_same_tokens_with_drafts_and_without(golden, prompt_of_golden, options):
    told = []
    for rows in (0, 8):
        runner = Runner(golden.model, slots=1, chunk=256, speculative_rows=rows)
        sampling = {"temperature": 0.3, "seed": 5, "max_tokens": 50} | options
        running = start(runner, prompt_of_golden, **sampling)
        read(runner, running)
        told.append((len(steps(runner, running)), running.slot.tokens))
    (plain, expected), (speculated, tokens) = told
    assert tokens == expected
    assert speculated < plain == 49


@pytest.mark.parametrize("kind", [FP16, NATIVE_HALF, NATIVE_INT8], ids=lambda kind: kind.name)
def test_not_a_bit_depends_on_whether_a_prompt_is_read_beside_others(
    golden, prompt_of_golden, kind, monkeypatch
):
    if not works(kind):
        pytest.skip(f"this machine has no kernel for {kind.name}")
    if kind is FP16:
        monkeypatch.setattr(kv_cache, "library", lambda: None)
        monkeypatch.setattr(rotary, "library", lambda: None)
    model = FastGPT(FromCheckpoint(read_checkpoint(golden.files, variant_name=None), kind), kind)
    told = []
    for beside in (False, True):
        runner = Runner(model, slots=1, chunk=64)
        running = start(runner, prompt_of_golden, 1)
        passes = 1
        while runner.prefill(running, beside=beside) is None:
            passes += 1
        told.append((passes, running.slot.tokens, running.slot.nll))
    assert told[0][1:] == told[1][1:]
    assert (told[1][0] > told[0][0]) == model.any_chunks == (kind is not FP16)


@pytest.mark.parametrize("kind", [FP16, INT8, NATIVE_HALF, NATIVE_INT8], ids=lambda kind: kind.name)
def test_not_a_bit_of_a_packed_models_answer_depends_on_drafts(
    golden, prompt_of_golden, kind, monkeypatch
):
    if not works(kind):
        pytest.skip(f"this machine has no kernel for {kind.name}")
    if kind in (FP16, INT8):  # these serve where there are none of our own
        monkeypatch.setattr(kv_cache, "library", lambda: None)
        monkeypatch.setattr(rotary, "library", lambda: None)
    checkpoint = read_checkpoint(golden.files, variant_name=None)
    model = FastGPT(FromCheckpoint(checkpoint, kind), kind)
    told = []
    for drafts in ([], [0] * 50, "told before"):
        runner = Runner(model, slots=1, chunk=256, speculative_rows=8)
        running = start(runner, prompt_of_golden, 50, temperature=1.0, seed=1)
        running.drafts = Scripted(told[0][0][200:] if drafts == "told before" else drafts)
        read(runner, running)
        steps(runner, running)
        told.append((running.slot.tokens, running.slot.nll))
    assert told[0] == told[1] == told[2]


def test_drafts_that_come_true_are_told_in_one_step(speculating, golden, running, shapes):
    greedy = golden.greedy
    request = running(greedy, max_tokens=20)
    assert steps(speculating, request) == [[greedy[1:9]], [greedy[9:17]], [greedy[17:20]]]
    assert shapes[1:] == [(1, 8), (1, 8), (1, 3)]


def test_drafts_that_are_wrong_change_nothing(speculating, golden, running):
    wrong = running([0] * 32)
    assert steps(speculating, wrong) == [[[token]] for token in golden.greedy[1:]]
    half = [token if at % 3 else 0 for at, token in enumerate(golden.greedy)]
    assert len(steps(speculating, right := running(half))) == 11
    assert wrong.slot.tokens == right.slot.tokens


def test_a_stop_token_among_drafts_ends_the_answer_there(speculating, golden, running):
    stop = next(token for token in golden.greedy if golden.greedy.index(token) == 3)
    request = running(golden.greedy, stop_tokens=frozenset([stop]))
    assert steps(speculating, request) == [[golden.greedy[1:4]]]
    assert request.finish_reason == "stop"
    assert request.slot.tokens[200:] == golden.greedy[:4]


def test_one_drafts_while_another_does_not(speculating, golden, running):
    ids, greedy = golden.ids.tolist(), golden.greedy
    plain = Runner(golden.model, slots=1, chunk=256)
    read(plain, alone := start(plain, ids[:50]))
    steps(plain, alone)
    batch = running(greedy), running([], ids[:50])
    assert [len(tokens) for tokens, _ in steps(speculating, *batch)] == [4] * 7 + [3]
    assert steps(speculating, batch[1])
    assert [one.slot.tokens[-32:] for one in batch] == [greedy, alone.slot.tokens[-32:]]


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 6])
def test_a_step_computes_no_more_rows_than_may_be(golden, prompt_of_golden, shapes, rows):
    runner = Runner(golden.model, slots=2, chunk=256, speculative_rows=rows)
    batch = [start(runner, prompt_of_golden) for _ in range(2)]
    for one in batch:
        read(runner, one)
        one.drafts = Scripted(golden.greedy)
        one.drafts.push(golden.greedy[0])
    assert answer(runner, *batch) == [golden.greedy] * 2
    assert set(shapes[2:-1]) == {(2, max(1, rows // 2))}


def test_drafts_end_where_the_context_of_another_does(speculating, golden, running, shapes):
    ids = golden.ids.tolist()
    long = running([], [*ids, *golden.greedy, *ids[:22]])  # two tokens before the end
    short = running(golden.greedy)
    told = steps(speculating, short, long)
    assert [len(tokens) for tokens, _ in told] == [2]
    assert (long.finish_reason, len(long.slot.tokens)) == ("length", 256)
    steps(speculating, short)
    assert short.slot.tokens[200:] == golden.greedy


class Following:
    """Forces tokens after another, once."""

    def __init__(self, after, tokens):
        self.after, self.tokens = after, tokens

    def __call__(self, token):
        if token != self.after:
            return []
        self.after = None
        return self.tokens


@pytest.mark.parametrize("rows", [0, 3, 8])
def test_tokens_that_must_follow_are_told_and_gone_on_from(golden, prompt_of_golden, rows):
    greedy = golden.greedy
    stop = next(t for t in range(1024) if t not in greedy)
    forced = [5, 9, stop, 5, 9]
    after = greedy.index(greedy[3]) + 1
    runner = Runner(golden.model, slots=2, chunk=256, speculative_rows=rows)
    follow = Following(greedy[3], forced)
    request = start(runner, prompt_of_golden, 20, follow=follow, stop_tokens=frozenset([stop]))
    read(runner, request)
    told = []
    while request.finish_reason is None:
        told += runner.decode([request])[0]
    plain = start(runner, [*prompt_of_golden, *greedy[:after], *forced], 15 - after)
    read(runner, plain)
    steps(runner, plain)
    assert request.slot.tokens == plain.slot.tokens
    assert [token.id for token in told if token.forced] == forced
    logits = golden.model.logits(golden.hidden(golden.ids.new_tensor(plain.slot.tokens)))
    expected = logits.log_softmax(-1)[199 + after, forced[0]].item()
    first = next(token for token in told if token.forced)
    assert first.logprob == pytest.approx(expected, rel=1e-4)


def test_what_fails_in_following_fails_alone(speculating, golden, running):
    good = running(golden.greedy)
    bad = running([], follow=lambda token: [] if token == golden.greedy[0] else 1 / 0)
    batch = sorted((good, bad), key=lambda one: one.slot.index)
    told = speculating.decode(batch)
    assert isinstance(bad.error, ZeroDivisionError)
    assert told == [[*told[0]], []]
    assert (good.error, len(told[0])) == (None, 4)


def test_a_row_that_is_not_finite_fails_alone(speculating, golden, running):
    good, bad = running(golden.greedy), running([])

    def spoil(module, inputs, logits):
        return logits.index_fill(0, golden.ids.new_tensor([len(logits) - 1]), math.nan)

    with golden.model.lm_head.register_forward_hook(spoil):
        told, nothing = speculating.decode([good, bad])
    assert [token.id for token in told] == golden.greedy[1:5]
    assert (nothing, type(bad.error), good.error) == ([], FloatingPointError, None)
