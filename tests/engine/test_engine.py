import threading

import pytest

from tinybrain.engine.engine import Engine
from tinybrain.engine.request import Completed, Failed, PromptRead, SampledToken
from tinybrain.errors import Busy, InvalidRequest, LocalModelError


@pytest.fixture
def engine_of_16(golden_model):
    """An engine that reads 16 tokens at once."""
    engine = Engine(golden_model, slots=3, prefill_chunk=16)
    yield engine
    engine.close()


def ask(engine, listener):
    engine.submit(listener.request)
    return listener


def test_greedy_tokens_and_perplexity_equal_nanochats(engine_of_each, each, listener):
    read, *tokens, end = ask(engine_of_each, listener(each.ids.tolist(), 32)).to_end()
    assert read.perplexity == pytest.approx(each.perplexity, rel=1e-5)
    assert [token.id for token in tokens] == each.greedy
    assert end == Completed("length")


def test_requests_answered_together_get_the_tokens_they_get_alone(engine_of_each, each, listener):
    engine, ids = engine_of_each, each.ids.tolist()
    prompts = [ids[:7], ids[20:150], ids[3:40], ids[90:], ids[:1], ids[60:75]]
    alone = [ask(engine, listener(prompt, 40)).tokens() for prompt in prompts]
    together = [ask(engine, listener(prompt, 40)) for prompt in prompts]
    assert [one.tokens() for one in together] == alone


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(engine, golden, listener):
    ids = golden.ids.tolist()
    options = {"temperature": 1.0, "top_k": 50}
    alone = ask(engine, listener(ids, 30, seed=3, **options)).tokens()
    others = [ask(engine, listener(ids[n:], 50, seed=n, **options)) for n in (5, 9)]
    assert ask(engine, listener(ids, 30, seed=3, **options)).tokens() == alone
    assert others[0].tokens() != alone


def test_a_stop_token_is_told_and_ends_the_answer(engine, golden, listener):
    prompt, greedy = golden.ids.tolist(), golden.greedy
    stop = next(token for token in greedy if greedy.index(token) == 3)
    heard = ask(engine, listener(prompt, stop_tokens=frozenset([stop]))).to_end()
    assert [event.id for event in heard[1:-1]] == greedy[:4]
    assert heard[-1] == Completed("stop")


def test_an_answer_ends_where_the_context_does(engine, golden, listener):
    assert len(ask(engine, listener(golden.ids.tolist(), 10_000)).tokens()) == 256 - 200


@pytest.mark.parametrize("length", [0, 256, 1000])
def test_a_prompt_that_leaves_no_room_is_refused(engine, listener, length):
    with pytest.raises(InvalidRequest):
        ask(engine, listener([1] * length))


def test_running_requests_are_decoded_in_one_batch(engine, listener, shapes):
    both = [listener([1, 2, 3], 6), listener([4], 6)]
    both[0].gate.clear()
    for one in both:
        ask(engine, one)
    both[0].gate.set()
    for one in both:
        one.to_end()
    # Each prompt alone, then both together until the first, one token ahead, has ended.
    assert shapes == [(1, 3), (1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (2, 1), (1, 1)]


def test_a_running_stream_gets_a_token_between_two_chunks(engine_of_16, golden, listener, shapes):
    running = listener([1, 2, 3], 100)
    running.gate.clear()
    ask(engine_of_16, running)
    reading = ask(engine_of_16, listener(golden.ids.tolist(), 32))
    running.gate.set()
    assert reading.tokens() == golden.greedy
    assert shapes[:6] == [(1, 3), (1, 1), (1, 16), (1, 1), (1, 16), (1, 1)]


def test_a_long_prompt_and_a_short_one_are_read_in_turns(engine_of_16, golden, listener, shapes):
    first = listener([9, 9], 1)
    first.gate.clear()
    ask(engine_of_16, first)
    long, short = listener(golden.ids.tolist(), 1), listener([1, 2, 3], 1)
    for one in (long, short):
        ask(engine_of_16, one)
    first.gate.set()
    for one in (short, long):
        one.to_end()
    assert shapes == [(1, 2), (1, 16), (1, 16), (1, 3), *[(1, 16)] * 10, (1, 8)]


def test_a_request_aborted_while_it_is_read_leaves_what_was_read(engine_of_16, golden, listener):
    prompt, engine = golden.ids.tolist(), engine_of_16
    left = listener(prompt, 32)

    left_at_32 = threading.Event()

    def leave(module, inputs):
        if inputs[1].positions[0, 0] == 32:
            engine.abort(left.request)
            left_at_32.set()

    with golden.model.register_forward_pre_hook(leave):
        ask(engine, left)
        assert left_at_32.wait(30)
    read, *tokens, _ = ask(engine, listener(prompt, 32)).to_end()
    assert read.reused == 48
    assert [token.id for token in tokens] == golden.greedy
    assert (left.events.empty(), engine.free_slots, engine.requests) == (True, 3, 0)


def test_an_aborted_request_frees_its_slot_and_says_no_more(golden_model, golden, listener):
    engine = Engine(golden_model, slots=1, max_waiting=1)
    running = listener(golden.ids.tolist()[:5], 200)
    running.gate.clear()
    ask(engine, running).next()
    waiting = ask(engine, listener([1, 2, 3], 200))
    engine.abort(running.request)
    engine.abort(waiting.request)
    successor = ask(engine, listener([4, 5, 6], 3))
    running.gate.set()
    assert len(successor.tokens()) == 3
    assert (engine.free_slots, engine.requests) == (1, 0)
    assert running.events.qsize() <= 2
    assert waiting.events.empty()
    engine.close()


def test_more_requests_than_may_wait_are_refused(golden_model, listener):
    engine = Engine(golden_model, slots=1, max_waiting=1)
    running = listener([1], 3)
    running.gate.clear()
    ask(engine, running).next()
    waiting = ask(engine, listener([2], 3))
    with pytest.raises(Busy):
        ask(engine, listener([3], 3))
    running.gate.set()
    waiting.to_end()
    assert len(ask(engine, listener([3], 3)).tokens()) == 3
    engine.close()


def test_a_prompt_that_cannot_be_read_fails_alone(engine, golden, listener):
    good = ask(engine, listener(golden.ids.tolist(), 32))
    bad = ask(engine, listener([10_000]))
    assert isinstance(bad.to_end()[-1].error, IndexError)
    assert good.tokens() == golden.greedy
    assert engine.free_slots == 4


def test_a_token_that_cannot_be_sampled_fails_its_request_alone(engine, golden, listener):
    good = ask(engine, listener(golden.ids.tolist(), 32))
    bad = ask(engine, listener([1, 2], temperature=1.0, top_k=-1))
    assert isinstance(bad.to_end()[-1], Failed)
    assert good.tokens() == golden.greedy


def test_a_failed_step_fails_the_requests_in_it_and_the_engine_goes_on(
    engine, golden_model, golden, listener
):
    def fail_on_a_batch(module, inputs):
        if inputs[0].shape == (2, 1):
            raise MemoryError("no memory for a batch")

    prompt = golden.ids.tolist()
    with golden_model.register_forward_pre_hook(fail_on_a_batch):
        both = [listener(prompt, 32), listener(prompt, 32)]
        both[0].gate.clear()
        for one in both:
            ask(engine, one)
        both[0].gate.set()
        for one in both:
            assert isinstance(one.to_end()[-1].error, MemoryError)
    assert ask(engine, listener(prompt, 32)).tokens() == golden.greedy
    assert engine.free_slots == 4


def test_a_listener_that_fails_is_dropped(engine, golden, listener):
    deaf = listener([1, 2], 200)
    object.__setattr__(deaf.request, "emit", lambda _: 1 / 0)
    ask(engine, deaf)
    assert ask(engine, listener(golden.ids.tolist(), 32)).tokens() == golden.greedy
    assert engine.requests == 0


def test_closing_fails_what_is_unfinished_and_refuses_what_comes(golden_model, listener):
    engine = Engine(golden_model, slots=1)
    running, waiting = listener([1], 200), listener([2], 200)
    running.gate.clear()
    for one in (running, waiting):
        ask(engine, one)
    assert isinstance(running.next(), PromptRead)
    engine._closed = True  # so that the close is seen while the request surely runs
    running.gate.set()
    engine.close()
    for one in (running, waiting):
        assert isinstance(one.to_end()[-1].error, LocalModelError)
    with pytest.raises(LocalModelError):
        ask(engine, listener([3]))
    engine.close()


@pytest.mark.parametrize("rows", [0, 8])
def test_tokens_that_must_follow_are_told_in_their_places(golden_model, golden, listener, rows):
    prompt, greedy = golden.ids.tolist(), golden.greedy
    forced = {greedy[0]: [5, 6], 6: [7]}
    engine = Engine(golden_model, slots=1, speculative_rows=rows)
    follow = listener(prompt, 8, follow=lambda token: forced.pop(token, []))
    tokens = [e for e in ask(engine, follow).to_end() if isinstance(e, SampledToken)]
    after = ask(engine, listener([*prompt, greedy[0], 5, 6, 7], 4)).tokens()
    engine.close()
    assert [token.id for token in tokens] == [greedy[0], 5, 6, 7, *after]
    assert [token.forced for token in tokens] == [False] + [True] * 3 + [False] * 4
    assert all(token.logprob < 0 < token.entropy for token in tokens)


def test_a_text_that_repeats_itself_takes_fewer_steps_than_tokens(engine_of_each, each, listener):
    steps = []
    with each.model.register_forward_pre_hook(lambda *_: steps.append(1)):
        tokens = ask(engine_of_each, listener(each.ids[:16].tolist() * 6, 100)).tokens()
    assert len(tokens) == 100 > len(steps)


def test_certainty_comes_with_every_token(engine, golden, listener):
    heard = ask(engine, listener(golden.ids.tolist(), 5)).to_end()
    tokens = [event for event in heard if isinstance(event, SampledToken)]
    assert all(t.logprob < 0 < t.entropy and 0 < t.margin < 1 for t in tokens)


def test_a_pipelined_engine_tells_what_another_does(golden_model, golden, listener):
    ids = golden.ids.tolist()
    stop = next(token for token in golden.greedy if golden.greedy.index(token) == 3)
    asked = [
        (ids, 20, {}),
        (ids, 20, {"stop_tokens": frozenset([stop])}),
        (ids[:9], 1, {}),
        (ids[5:60], 15, {"temperature": 1.0, "top_k": 50, "seed": 1}),
        (ids[:40], 9, {"temperature": 1.0, "top_p": 0.8, "seed": 2}),
        (ids, 500, {"temperature": 0.7, "seed": 3, "follow": lambda t: [6] * (t % 97 == 0)}),
        (ids[:3], 12, {"temperature": 0.7, "seed": 4, "repetition_penalty": 1.1}),
    ]
    told = []
    for pipelined in (False, True):
        engine = Engine(golden_model, slots=3, prefill_chunk=64, pipelined=pipelined)
        listeners = [ask(engine, listener(p, most, **options)) for p, most, options in asked]
        heard = [one.to_end() for one in listeners]
        told.append([[*(e.id for e in h if isinstance(e, SampledToken)), h[-1]] for h in heard])
        assert all(isinstance(h[0], PromptRead) for h in heard)
        assert (engine.requests, engine.free_slots) == (0, 3)
        engine.close()
    assert told[0] == told[1]
    assert told[0][1][-1] == Completed("stop")
