"""Against a real server: what is sent, what becomes of log-probs, and every way it can go wrong."""

import asyncio
import json
import math
import time
import traceback
from contextlib import aclosing

import httpx
import pytest
from providers import answering, streaming
from pydantic import SecretStr
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse

from tinybrain.chat import Finished, Message, Prefilled, Sampling, Token, TokenLogprob
from tinybrain.errors import Busy, InvalidRequest, LocalModelError
from tinybrain.routing.signals import Signals
from tinybrain.upstreams import remote_small_model, wire
from tinybrain.upstreams.remote_small_model import RemoteSmallModel

QUESTION = [Message("user", "Hi")]
DONE = b"data: [DONE]\n\n"


def told(token, p=0.9):
    """An entry of `logprobs.content` of a token that has this probability."""
    likeliest = {"token": token, "logprob": math.log(p), "bytes": list(token.encode())}
    second = {"token": "?", "logprob": math.log(0.05), "bytes": [63]}
    return likeliest | {"top_logprobs": [likeliest, second]}


def event(*entries, finish=None, usage=None, **delta):
    logprobs = {"content": list(entries)} if entries else None
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n".encode()


USAGE = event(finish="stop", usage={"prompt_tokens": 7, "completion_tokens": 3})
HEL, LO = event(told("Hel"), content="Hel"), event(told("lo", 0.5), content="lo")
HELLO = [event(role="assistant", content=""), HEL, LO, USAGE, DONE]


def token(text, p=0.9):
    return Token(text, pytest.approx(math.log(p)), None, pytest.approx(p - 0.05))


@pytest.fixture
def ask(provider, client):
    async def ask(reply, sampling=None, **options):
        provider.reply = reply if callable(reply) else streaming(reply)
        options = {"base_url": provider.url, "model": "m"} | options
        model = RemoteSmallModel(options.pop("client", client), **options)
        return [event async for event in model.generate(QUESTION, sampling or Sampling())]

    return ask


async def test_an_answer_is_its_tokens_with_log_probability_and_margin_but_no_entropy(ask):
    assert await ask(HELLO) == [
        Prefilled(None, 0),
        token("Hel"),
        token("lo", 0.5),
        Finished("stop", 7, 3),
    ]


async def test_dribbling_bytes_give_the_same_answer(ask):
    stream = b": ping\r\n\r\n" + b"".join(HELLO).replace(b"\n", b"\r\n")
    assert await ask([stream[i : i + 3] for i in range(0, len(stream), 3)]) == await ask(HELLO)


async def test_a_server_that_does_not_stream_is_understood(ask):
    choice = {"message": {"content": "Hello"}, "finish_reason": "length"}
    choice["logprobs"] = {"content": [told("Hel"), told("lo", 0.5)]}
    events = await ask(answering(JSONResponse({"choices": [choice]})))
    assert events[1:] == [token("Hello"), token("", 0.5), Finished("length", 0, 2)]


async def test_the_request_asks_for_log_probs_and_hands_on_how_to_choose(ask, provider):
    sampling = Sampling(9, 0.5, top_p=0.9, seed=3, stop=("END",), logit_bias=((5, -1.0),))
    await ask(HELLO, sampling)
    assert provider.requests[0][0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["END"],
        "logit_bias": {"5": -1.0},
        "logprobs": True,
        "top_logprobs": 2,
    }


async def test_callers_who_ask_are_told_the_tokens_their_text_is_made_of(ask, provider):
    events = await ask(HELLO, Sampling(logprobs=True, top_logprobs=3))
    told = [logprob for event in events[1:-1] for logprob in event.logprobs]
    assert [logprob.raw for logprob in told] == [b"Hel", b"lo"]
    assert told[1].top[0] == (b"lo", pytest.approx(math.log(0.5)))
    assert provider.requests[0][0]["top_logprobs"] == 3


async def test_callers_who_do_not_ask_are_told_none(ask):
    assert all(event.logprobs == () for event in (await ask(HELLO))[1:-1])


async def test_a_character_of_several_tokens_comes_with_all_of_them(ask):
    halves = [told("x") | {"bytes": [0xC3]}, told("x") | {"bytes": [0xA9]}]
    stream = [event(halves[0], content=""), event(halves[1], content="é"), USAGE]
    events = await ask(stream, Sampling(logprobs=True))
    logprobs = tuple(TokenLogprob(raw, pytest.approx(math.log(0.9))) for raw in (b"\xc3", b"\xa9"))
    assert [(event.text, event.logprobs) for event in events[1:-1]] == [("é", logprobs), ("", ())]


async def test_a_token_without_text_at_the_end_still_counts_as_doubt(ask):
    events = await ask([HEL, event(told("", 0.2), finish="stop")])
    assert events[1:] == [token("Hel"), token("", 0.2), Finished("stop", 0, 2)]


async def test_reasoning_is_neither_shown_nor_measured(ask):
    tagged = [event(told(piece, 0.1), content=piece) for piece in ("<think>", "Hm", "</think>")]
    field = event(told("Hm", 0.1), reasoning_content="Hm")
    assert await ask([*tagged, field, HEL, USAGE]) == [
        Prefilled(None, 0),
        token("Hel"),
        Finished("stop", 7, 3),
    ]


async def test_what_only_began_like_reasoning_keeps_its_log_probs(ask):
    events = await ask([event(told("<"), content="<"), event(told("3", 0.5), content="3"), USAGE])
    assert events[1:-1] == [token("<3"), token("", 0.5)]


async def test_an_api_without_log_probs_is_refused_with_what_to_switch_on(ask):
    with pytest.raises(LocalModelError, match=r"no log-probabilities.*logprobs: true.*llama\.cpp"):
        await ask([event(content="Hi"), USAGE, DONE])


async def test_text_whose_log_probs_went_missing_later_is_the_deepest_doubt(ask):
    events = await ask([HEL, event(content="lo"), USAGE])
    assert Signals.of(events[1:-1]).min_logprob == -math.inf


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([], id="nothing"),
        pytest.param([HEL], id="ends early"),
        pytest.param([HEL, OSError("cut")], id="connection cut"),
        pytest.param([HEL, b"data: {bad\n\n"], id="no JSON"),
        pytest.param([b"<html>garbage", bytes(range(256))], id="garbage"),
        pytest.param([HEL, b'data: {"error":{"message":"x"}}\n\n'], id="error event"),
        pytest.param([b"data: " + b"x" * 3_000_000], id="line of 3 MB"),
        pytest.param([event(told("a") | {"logprob": 3}, content="a")], id="impossible figure"),
        pytest.param([event(told("a") | {"logprob": math.nan}, content="a")], id="NaN"),
        pytest.param(
            [event(told("a") | {"top_logprobs": [told("a", 1), told("b", 1)]}, content="a")],
            id="sure of everything",
        ),
    ],
)
async def test_a_broken_or_lying_stream_is_a_failure_of_the_small_model(ask, chunks):
    with pytest.raises(LocalModelError, match="m failed"):
        await ask(chunks)


@pytest.mark.parametrize("rest", [[], [OSError("cut")]])
async def test_a_stream_that_said_how_it_ended_needs_no_last_word(ask, rest):
    assert (await ask([*HELLO[:-1], *rest]))[-1] == Finished("stop", 7, 3)


async def test_an_endless_answer_is_bounded_in_bytes(ask, monkeypatch):
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 10_000)
    with pytest.raises(LocalModelError, match="10000 bytes"):
        await ask([HEL] * 1000)


async def test_an_endless_answer_is_bounded_in_time_though_it_shows_signs_of_life(ask):
    with pytest.raises(LocalModelError, match=r"over 0\.2 s"):
        await ask([b": ping\n\n", 0.05] * 100, timeout_s=0.2)


async def test_a_slow_first_byte_runs_into_the_read_timeout(ask, monkeypatch):
    monkeypatch.setattr(remote_small_model, "TIMEOUT", httpx.Timeout(30, read=0.1))
    with pytest.raises(LocalModelError, match="ReadTimeout"):
        await ask([1.0, *HELLO])


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://[bad/v1"])
async def test_a_server_that_is_not_there_is_a_failure(ask, url):
    with pytest.raises(LocalModelError, match=r"ConnectError|InvalidURL"):
        await ask(HELLO, base_url=url)


@pytest.mark.parametrize(
    ("status", "next_step"), [(401, "SMALL_MODEL_API_KEY"), (404, "SMALL_MODEL_URL"), (500, "no x")]
)
async def test_another_status_is_a_failure_with_a_bounded_excerpt(ask, status, next_step):
    reply = answering(PlainTextResponse("no " + "x" * 100_000, status_code=status))
    with pytest.raises(LocalModelError, match=f"answered {status}: no x.*") as caught:
        await ask(reply)
    assert next_step in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_without_capacity_is_busy(ask, status):
    with pytest.raises(Busy):
        await ask(answering(PlainTextResponse("later", status_code=status)))


async def test_more_requests_than_the_client_may_send_are_busy(ask, provider, monkeypatch):
    monkeypatch.setattr(remote_small_model, "TIMEOUT", httpx.Timeout(5, pool=0.1))
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
        asked = [ask([0.5, *HELLO], client=client) for _ in range(2)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, Busy) for answer in answers] in ([True, False], [False, True])


@pytest.mark.parametrize(
    "error",
    [
        {"message": "request (6031 tokens) exceeds the available context size (1024 tokens)"},
        {"message": "This model's maximum context length is 1024 tokens."},
        {"message": "too long", "code": "context_length_exceeded"},
    ],
)
async def test_a_conversation_too_long_for_the_model_is_the_callers_fault(ask, error):
    with pytest.raises(InvalidRequest) as caught:
        await ask(answering(JSONResponse({"error": error}, status_code=400)))
    assert caught.value.code == "context_length_exceeded"


async def test_redirects_are_not_followed_so_the_key_goes_nowhere_else(ask, provider):
    async with httpx.AsyncClient(follow_redirects=True) as client:
        with pytest.raises(LocalModelError, match="307"):
            await ask(answering(RedirectResponse(provider.url)), client=client)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("key", ["sk-1234", "sk-1234\n", "sk-1234é"])
async def test_the_key_is_a_bearer_token_and_never_in_what_is_logged(ask, provider, key):
    denial = PlainTextResponse("bad key sk-1234", status_code=401)
    with pytest.raises(LocalModelError) as caught:
        await ask(answering(denial), api_key=SecretStr(key))
    if provider.requests:
        assert provider.requests[0][1]["authorization"] == "Bearer sk-1234"
    assert "sk-1234" not in "".join(traceback.format_exception(caught.value))


async def test_a_key_that_the_server_repeats_in_the_stream_is_not_told_either(ask):
    error = b'data: {"error": {"message": "no credit on sk-1234"}}\n\n'
    with pytest.raises(LocalModelError, match=r"no credit on \[secret\]"):
        await ask([error], api_key=SecretStr("sk-1234"))


@pytest.mark.parametrize("key", ["Hel", "0", "content"])
async def test_a_key_that_only_stands_for_one_leaves_the_answer_as_it_is(ask, key):
    assert await ask(HELLO, api_key=SecretStr(key)) == await ask(HELLO)


async def test_a_connection_left_open_after_done_does_not_delay_the_end(ask):
    started = time.monotonic()
    assert (await ask([*HELLO, 60.0]))[-1] == Finished("stop", 7, 3)
    assert time.monotonic() - started < 30


async def test_closing_early_ends_the_request(provider, client):
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def reply(request):
        async def body():
            try:
                while True:
                    yield HEL
                    await asyncio.sleep(0.01)
            finally:
                loop.call_soon_threadsafe(gone.set)

        return StreamingResponse(body(), media_type="text/event-stream")

    provider.reply = reply
    model = RemoteSmallModel(client, base_url=provider.url, model="m")
    async with aclosing(model.generate(QUESTION, Sampling())) as events:
        assert await anext(events) == Prefilled(None, 0)
        assert await anext(events) == token("Hel")
    await asyncio.wait_for(gone.wait(), 5)
