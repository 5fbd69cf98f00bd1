"""Against a real server: what is sent, what is understood, and every way it can go wrong."""

import asyncio
import json
import time
from contextlib import aclosing

import httpx
import pytest
from providers import answering, streaming
from pydantic import SecretStr
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tinybrain.chat import Finished, Message, Sampling, Text, Thought
from tinybrain.errors import BudgetExceeded, UpstreamError
from tinybrain.upstreams import openai_compatible, wire
from tinybrain.upstreams.openai_compatible import OpenAICompatible

QUESTION = [Message("user", "Hi")]


def event(finish_reason=None, **delta):
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


HELLO = [event(content="Hel"), event(content="lo"), event("stop"), b"data: [DONE]\n\n"]


@pytest.fixture
def ask(provider, client):
    async def ask(reply, *, messages=QUESTION, sampling=None, **options):
        provider.reply = reply
        options = {"base_url": provider.url, "model": "m", "name": "p", "max_tokens": 99} | options
        upstream = OpenAICompatible(options.pop("client", client), **options)
        events = upstream.generate(messages, sampling or Sampling(), answer_id="a1")
        return [event async for event in events]

    return ask


async def test_a_streamed_answer_comes_in_its_pieces(ask):
    assert await ask(streaming(HELLO)) == [Text("Hel"), Text("lo"), Finished("stop", 0, 2)]


async def test_dribbling_bytes_give_the_same_answer(ask):
    stream = b": hi\r\n\r\n" + b"".join(HELLO).replace(b"\n", b"\r\n")
    chunks = [stream[i : i + 3] for i in range(0, len(stream), 3)]
    assert await ask(streaming(chunks)) == [Text("Hel"), Text("lo"), Finished("stop", 0, 2)]


async def test_an_unstreamed_answer_is_accepted(ask):
    message = {"content": "<think>Hm</think>Hi"}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    assert (await ask(answering(JSONResponse(body))))[:2] == [Thought("Hm"), Text("Hi")]


async def test_the_request_carries_model_messages_and_bounded_sampling(ask, provider):
    sampling = Sampling(max_tokens=1000, temperature=0.5, top_p=0.9, seed=3, stop=("END",))
    await ask(streaming(HELLO), sampling=sampling)
    assert provider.requests[0][0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["END"],
    }


async def test_a_provider_without_usage_reports_is_not_asked_for_them(ask, provider):
    await ask(streaming(HELLO), reports_usage=False, sampling=Sampling(max_tokens=5))
    assert "stream_options" not in provider.requests[0][0]
    assert provider.requests[0][0]["max_tokens"] == 5


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([], [("system", "Be brief."), ("user", "Hi")]),
        ([Message("system", "Be long.")], [("system", "Be long."), ("user", "Hi")]),
    ],
)
async def test_the_system_message_yields_to_the_callers_own(ask, provider, given, sent):
    await ask(streaming(HELLO), messages=[*given, *QUESTION], system_message="Be brief.")
    turns = provider.requests[0][0]["messages"]
    assert [(turn["role"], turn["content"]) for turn in turns] == sent


async def test_the_api_key_is_a_bearer_token_and_never_in_an_error(ask, provider):
    denial = PlainTextResponse("bad key sk-1234", status_code=401)
    with pytest.raises(UpstreamError) as caught:
        await ask(answering(denial), api_key=SecretStr("sk-1234"))
    assert provider.requests[0][1]["authorization"] == "Bearer sk-1234"
    assert "sk-1234" not in caught.value.message


@pytest.mark.parametrize("status", [302, 402, 429, 500])
async def test_another_status_is_an_error_with_a_bounded_excerpt(ask, status):
    with pytest.raises(UpstreamError, match=f"p answered {status}: no x+") as caught:
        await ask(answering(PlainTextResponse("no " + "x" * 100_000, status_code=status)))
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([], id="nothing"),
        pytest.param(HELLO[:2], id="ends early"),
        pytest.param([*HELLO[:1], OSError("cut")], id="connection cut"),
        pytest.param([*HELLO[:1], b"data: {bad\n\n"], id="no JSON"),
        pytest.param([b"<html>garbage", bytes(range(256))], id="garbage"),
        pytest.param([*HELLO[:1], b'data: {"error":{"message":"x"}}\n\n'], id="error event"),
        pytest.param([b"data: " + b"x" * 3_000_000], id="line of 3 MB"),
    ],
)
async def test_a_broken_stream_is_an_upstream_error(ask, chunks):
    with pytest.raises(UpstreamError):
        await ask(streaming(chunks))


async def test_a_cut_after_the_end_of_the_answer_takes_nothing_from_it(ask):
    assert (await ask(streaming([*HELLO[:3], OSError("cut")])))[-1] == Finished("stop", 0, 2)


async def test_an_endless_answer_is_bounded(ask, monkeypatch):
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 10_000)
    with pytest.raises(UpstreamError, match="10000 bytes"):
        await ask(streaming(HELLO[:1] * 1000))


async def test_a_truncated_json_answer_is_an_upstream_error(ask):
    with pytest.raises(UpstreamError):
        await ask(answering(Response('{"choices": [', media_type="application/json")))


async def test_a_slow_first_byte_runs_into_the_read_timeout(ask, monkeypatch):
    monkeypatch.setattr(openai_compatible, "TIMEOUT", httpx.Timeout(30, read=0.1))
    with pytest.raises(UpstreamError, match="ReadTimeout"):
        await ask(streaming([1.0, *HELLO]))


async def test_an_unreachable_server_is_an_upstream_error(ask):
    with pytest.raises(UpstreamError, match="ConnectError"):
        await ask(None, base_url="http://127.0.0.1:1/v1")


async def test_a_connection_left_open_after_done_does_not_delay_the_end(ask):
    started = time.monotonic()
    assert (await ask(streaming([*HELLO, 60.0])))[-1] == Finished("stop", 0, 2)
    assert time.monotonic() - started < 30


async def test_the_connection_is_used_again_after_an_answer(ask, provider, monkeypatch):
    monkeypatch.setattr(wire, "DRAIN_TIMEOUT_S", 30)  # however late the end of the answer comes
    await ask(streaming(HELLO))
    await ask(streaming(HELLO))
    assert provider.requests[0][2] == provider.requests[1][2]


async def test_closing_early_ends_the_call(provider, client):
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def reply(request):
        async def body():
            try:
                while True:
                    yield HELLO[0]
                    await asyncio.sleep(0.01)
            finally:
                loop.call_soon_threadsafe(gone.set)

        return StreamingResponse(body(), media_type="text/event-stream")

    provider.reply = reply
    upstream = OpenAICompatible(client, base_url=provider.url, model="m", name="p", max_tokens=9)
    async with aclosing(upstream.generate(QUESTION, Sampling(), answer_id="a1")) as events:
        assert await anext(events) == Text("Hel")
    await asyncio.wait_for(gone.wait(), 5)


class PayingTransport(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request):
        assert request.extensions["tinybrain_answer_id"] == "a1"
        response = await super().handle_async_request(request)
        response.extensions |= {"tinybrain_cost": 1100, "tinybrain_transaction": "0xabc"}
        return response


class BrokeTransport(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request):
        raise BudgetExceeded("The day's cap is reached.")


async def test_the_paying_transport_learns_the_answer_and_tells_the_cost(ask):
    async with httpx.AsyncClient(transport=PayingTransport()) as client:
        end = (await ask(streaming(HELLO), client=client))[-1]
    assert (end.cost, end.transaction) == (1100, "0xabc")


async def test_what_the_transport_refuses_comes_through_as_it_is(ask):
    async with httpx.AsyncClient(transport=BrokeTransport()) as client:
        with pytest.raises(BudgetExceeded):
            await ask(streaming(HELLO), client=client)
