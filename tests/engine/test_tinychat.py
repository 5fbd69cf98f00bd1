import asyncio
import gc

import pytest

from tinybrain.chat import Finished, Message, Prefilled, Sampling, Token
from tinybrain.config import load_settings
from tinybrain.engine.loading import load_tinychat
from tinybrain.errors import InvalidRequest, LocalModelError

GREEDY = Sampling(temperature=0)


async def answer(tinychat, *contents, sampling=GREEDY):
    roles = ("user", "assistant") * len(contents)
    messages = [Message(role, content) for role, content in zip(roles, contents, strict=False)]
    return [event async for event in tinychat.generate(messages, sampling)]


def text(events):
    return "".join(e.text for e in events if isinstance(e, Token | Finished))


async def test_the_shipped_model_says_who_it_is(tinychat):
    assert "TinyChat" in text(await answer(tinychat, "Hello, who are you?"))


async def test_the_shipped_model_knows_the_capital_of_japan(tinychat):
    assert "Tokyo" in text(await answer(tinychat, "What is the capital of Japan?"))


async def test_events_are_one_prefilled_then_tokens_then_one_finished(tinychat):
    read, *tokens, end = await answer(tinychat, "What is the capital of Japan?")
    assert isinstance(read, Prefilled)
    assert read.perplexity > 1
    assert all(isinstance(token, Token) for token in tokens)
    assert (end.reason, end.prompt_tokens) == ("stop", read.prompt_tokens)
    assert end.completion_tokens == len(tokens)


async def test_the_stop_token_counts_but_has_no_text(tinychat):
    *_, last, _ = await answer(tinychat, "What is the capital of Japan?")
    assert last.text == ""
    assert last.logprob > -1


async def test_it_tells_what_it_is(tinychat):
    assert (tinychat.name, tinychat.device) == ("tinychat", "cpu")
    assert (tinychat.context_length, tinychat.parameters) == (512, 9_994_240)
    assert len(tinychat.checkpoint_hash) == 16


async def test_max_tokens_ends_the_answer(tinychat):
    events = await answer(tinychat, "Who are you?", sampling=Sampling(max_tokens=2, temperature=0))
    assert (events[-1].reason, events[-1].completion_tokens) == ("length", 2)


@pytest.mark.parametrize("option", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}])
async def test_what_leaves_only_the_likeliest_token_is_greedy(tinychat, option):
    sampling = Sampling(temperature=2, **{"top_k": 0} | option)
    question = "What is the capital of Japan?"
    assert text(await answer(tinychat, question, sampling=sampling)) == text(
        await answer(tinychat, question)
    )


async def test_the_engine_is_told_how_tokens_are_chosen(tinychat, monkeypatch):
    submit, asked = tinychat.engine.submit, []
    monkeypatch.setattr(tinychat.engine, "submit", lambda r: (asked.append(r), submit(r)))
    chosen = {"max_tokens": 3, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1}
    chosen |= {"repetition_penalty": 1.2, "seed": 4, "logit_bias": ((5, 1.0),)}
    await answer(tinychat, "Hello", sampling=Sampling(**chosen))
    assert {name: getattr(asked[0], name) for name in chosen} == chosen


async def test_a_biased_token_that_does_not_exist_is_refused(tinychat):
    with pytest.raises(InvalidRequest, match="token 4096, but TinyChat's tokens are 0 to 4095"):
        await answer(tinychat, "Hi", sampling=Sampling(logit_bias=((4096, 1.0),)))


def told(events):
    return [entry for e in events if isinstance(e, Token | Finished) for entry in e.logprobs]


async def test_logprobs_are_told_of_the_tokens_that_the_text_is_made_of(tinychat):
    asked = Sampling(temperature=0, logprobs=True, top_logprobs=3)
    events = await answer(tinychat, "Who are you?", sampling=asked)
    tokens = [event for event in events if isinstance(event, Token)]
    assert b"".join(entry.raw for entry in told(events)).decode() == text(events)
    # All but the stop token, which has no text.
    assert [entry.logprob for entry in told(events)] == [token.logprob for token in tokens[:-1]]
    assert all(entry.top[0] == (entry.raw, entry.logprob) for entry in told(events))
    assert {len(entry.top) for entry in told(events)} == {3}


async def test_logprobs_come_only_when_asked_for_and_with_text(tinychat):
    assert told(await answer(tinychat, "Who are you?")) == []
    events = await answer(
        tinychat, "Who are you?", sampling=Sampling(temperature=0, logprobs=True, stop=("TinyX",))
    )
    assert told(events)
    assert all(event.text for event in events if isinstance(event, Token) and event.logprobs)


async def test_logprobs_of_what_a_stop_string_cut_off_are_not_told(tinychat):
    whole = text(await answer(tinychat, "Who are you?"))
    asked = Sampling(temperature=0, logprobs=True, stop=(whole[4:11],))
    events = await answer(tinychat, "Who are you?", sampling=asked)
    before_last = b"".join(entry.raw for entry in told(events)[:-1]).decode()
    # The last token may reach into the stop string, but begins before it.
    assert len(before_last) < len(text(events))
    assert b"".join(entry.raw for entry in told(events)).decode().startswith(text(events))


async def test_logprobs_of_a_character_that_stays_incomplete_are_told(tinychat):
    ids = tinychat._tokenizer.encode("\u65e5")  # a character the shipped tokenizer has no token for
    assert len(ids) > 1
    forced = Sampling(temperature=0, max_tokens=1, logprobs=True, logit_bias=((ids[0], 100.0),))
    events = await answer(tinychat, "Hi", sampling=forced)
    assert text(events) == "\ufffd"
    assert [entry.raw for entry in told(events)] == [tinychat._tokenizer.token_bytes(ids[0])]


@pytest.fixture
def calculating(tinychat, monkeypatch):
    """Makes the model write a call of the calculator after its first token."""

    def submit(request):
        written = iter([expression])
        answered = request.follow

        def follow(token):
            return [*next(written, []), *answered(token)]

        object.__setattr__(request, "follow", follow)
        plain_submit(request)

    tokenizer, plain_submit = tinychat._tokenizer, tinychat.engine.submit
    start, end = (tokenizer.special(f"python_{name}") for name in ("start", "end"))
    expression = [start, *tokenizer.encode("12*34"), end]
    monkeypatch.setattr(tinychat.engine, "submit", submit)
    return tinychat


async def test_the_calculators_value_is_shown_in_place_of_the_expression(calculating):
    asked = Sampling(temperature=0, max_tokens=20, logprobs=True)
    read, *tokens, end = await answer(calculating, "What is 12 times 34?", sampling=asked)
    shown = text([read, *tokens, end])
    assert "408" in shown
    assert "*" not in shown
    assert b"".join(entry.raw for entry in told([*tokens, end])).decode() == shown
    assert len(tokens) == end.completion_tokens


async def test_what_the_calculator_adds_is_told_as_forced(calculating):
    _, first, *tokens, _ = await answer(calculating, "What is 12 times 34?")
    forced = [token for token in tokens if token.forced]
    assert not first.forced
    assert "".join(token.text for token in forced) == "408"
    assert tokens[: len(forced)] == forced


async def test_the_last_user_message_has_a_perplexity_of_its_own(tinychat):
    history = ["What is the capital of France?", "Paris."]
    usual, odd = [
        (await answer(tinychat, *history, question, sampling=Sampling(max_tokens=1)))[0]
        for question in ("What is the capital of Japan?", "Qzx vv 17 kraal umlaut ]]")
    ]
    assert 1 < usual.user_perplexity < odd.user_perplexity
    assert odd.user_perplexity > odd.perplexity


async def test_the_span_of_the_last_user_message_is_its_text_alone(tinychat, monkeypatch):
    submit, asked = tinychat.engine.submit, []
    monkeypatch.setattr(tinychat.engine, "submit", lambda r: (asked.append(r), submit(r)))
    long = "word " * 400  # more than fits: only its end does
    for question in ("Who?", long):
        await answer(tinychat, "Hi", "Hello.", question, sampling=Sampling(max_tokens=1))
        begin, end = asked[-1].span
        message = tinychat._tokenizer._encoding.decode(asked[-1].prompt[begin:end])
        assert message
        assert question.endswith(message)
        assert asked[-1].prompt[end] == tinychat._tokenizer.special("user_end")


async def test_a_stop_string_ends_the_answer_before_it(tinychat):
    whole = text(await answer(tinychat, "Who are you?"))
    stop = whole[4:11]
    events = await answer(tinychat, "Who are you?", sampling=Sampling(temperature=0, stop=(stop,)))
    assert text(events) == whole[: whole.index(stop)]
    assert events[-1].reason == "stop"


async def test_the_same_seed_gives_the_same_text(tinychat):
    hot = Sampling(temperature=1.5, top_k=0, seed=1, max_tokens=30)
    first, again = await asyncio.gather(
        *(answer(tinychat, "Tell me a story.", sampling=hot) for _ in range(2))
    )
    assert text(first) == text(again) != ""


async def test_many_at_once_each_get_their_own_answer(tinychat):
    questions = ["Who are you?", "What is the capital of Japan?", "Hello!", "37 + 48?"] * 3
    together = await asyncio.gather(*(answer(tinychat, question) for question in questions))
    for question, events in zip(questions, together, strict=True):
        assert text(events) == text(await answer(tinychat, question))


async def test_a_conversation_longer_than_the_context_is_shortened(tinychat):
    history = ["What is the capital of France?", "Paris."] * 60
    events = await answer(tinychat, *history, "What is the capital of Japan?")
    assert events[0].prompt_tokens <= 256
    assert "Tokyo" in text(events)


async def test_closing_the_iterator_ends_the_work(tinychat):
    stream = tinychat.generate([Message("user", "Who are you?")], GREEDY)
    assert isinstance(await anext(stream), Prefilled)
    await stream.aclose()
    assert tinychat.engine.requests == 0


async def test_a_cancelled_reader_ends_the_work(tinychat):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(answer(tinychat, "Who are you?"))
        await asyncio.sleep(0)
        assert tinychat.engine.requests == 1
        task.cancel()
    assert tinychat.engine.requests == 0


def test_a_loop_closed_under_a_request_leaves_the_engine_working(tinychat):
    async def leave():
        stream = tinychat.generate([Message("user", "Who are you?")], GREEDY)
        await anext(stream)
        return stream

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    gc.collect()
    assert "Tokyo" in text(asyncio.run(answer(tinychat, "What is the capital of Japan?")))


async def test_a_conversation_that_cannot_be_rendered_is_refused(tinychat):
    with pytest.raises(InvalidRequest):
        await answer(tinychat)


async def test_a_failing_model_is_told_with_its_cause(tinychat):
    with pytest.raises(LocalModelError) as failure:
        await answer(tinychat, "Hi", sampling=Sampling(top_k=-1))
    assert isinstance(failure.value.__cause__, RuntimeError)


def test_warming_up_computes_and_closing_ends():
    tinychat = load_tinychat(load_settings(), slots=1)
    tinychat.warm_up()
    tinychat.close()
    with pytest.raises(LocalModelError):
        tinychat.warm_up()
