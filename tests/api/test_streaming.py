"""Answers in pieces: OpenAI's chunks and TinyChat's own events, paid for after the last one."""

import json

import httpx
import pytest
from openai.types.chat import ChatCompletionChunk

pytestmark = pytest.mark.chain
HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}], "max_tokens": 32}
THINK = {
    "messages": [{"role": "user", "content": "think hard: why is the sky blue?"}],
    "max_tokens": 8,
}


@pytest.fixture
def stream(service, caller):
    """Streams one answer and waits for its settlement."""

    def events(body, **options):
        *chunks, end = caller.stream(service, body, **options)
        assert end == "[DONE]"
        service.settled(receipt_in(chunks)["receipt"])
        return chunks

    return events


def receipt_in(chunks):
    (told,) = [c["x_tinybrain"] for c in chunks if "receipt" in c.get("x_tinybrain", {})]
    return told


def text(chunks):
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


def test_the_role_comes_first_with_who_answers(stream):
    first = stream(HELLO)[0]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["x_tinybrain"]["answered_by"] == "tinychat"


def test_the_text_is_the_same_as_that_of_a_whole_answer(service, caller, stream):
    whole = caller.ask(service, HELLO).json()["choices"][0]["message"]["content"]
    assert text(stream(HELLO)) == whole


def test_the_logprobs_of_a_stream_are_those_of_the_whole_answer_with_their_text(
    service, caller, stream
):
    asked = HELLO | {"logprobs": True, "top_logprobs": 2, "stop": [" of Tiny"]}
    whole = caller.ask(service, asked).json()["choices"][0]["logprobs"]["content"]
    chunks = [ChatCompletionChunk.model_validate(chunk) for chunk in stream(asked)]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    told = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert [token.bytes for token in told] == [token["bytes"] for token in whole]
    # A prompt that is in the cache already is computed in another order.
    expected = pytest.approx([token["logprob"] for token in whole], abs=1e-3)
    assert [token.logprob for token in told] == expected
    assert all(choice.delta.content for choice in choices if choice.logprobs)


def test_every_chunk_has_the_same_id_time_and_model(stream):
    chunks = stream(THINK)
    assert len(chunks) > 3
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1


def test_the_last_chunk_has_the_finish_reason_and_the_receipt(service, stream):
    last = stream(HELLO | {"max_tokens": 3})[-1]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    told = last["x_tinybrain"]
    assert told["payment"]["amount"] == told["price_atomic"] == 10_000
    assert httpx.get(service.url + httpx.URL(told["receipt_url"]).path).status_code == 200


def test_usage_is_told_only_to_who_asks_for_it(stream):
    usage = {"stream_options": {"include_usage": True}}
    asked = stream(HELLO | usage | {"max_tokens": 5})
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["completion_tokens"] == 5
    assert "usage" not in stream(HELLO)[-1]


async def test_a_stock_client_has_the_whole_stream_before_it_is_settled(service, caller):
    service.may_settle.clear()
    lines = []
    try:
        async with (
            caller.http() as http,
            http.stream(
                "POST", f"{service.url}/v1/chat/completions", json=HELLO | {"stream": True}
            ) as response,
        ):
            lines = [line async for line in response.aiter_lines() if line]
        answer_id = response.headers["x-tinybrain-receipt"]
        assert lines[-1] == "data: [DONE]"
        assert service.payment(answer_id)["state"] == "served"
        assert caller.balance() == 1_000_000
    finally:
        service.may_settle.set()
    service.settled(answer_id)
    assert caller.balance() == 990_000


def test_the_ledger_knows_the_outcome_before_the_last_chunk_is_sent(service, caller):
    url, body = f"{service.url}/v1/chat/completions", HELLO | {"stream": True}
    headers = caller.headers(service)
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as response:
        for line in response.iter_lines():
            if '"receipt"' in line:
                (answer,) = service.rows("answers", f"id = '{receipt_of(line)}'")
                assert answer["outcome"] == "completed"
    service.settled(answer["id"])


def receipt_of(line):
    return json.loads(line.removeprefix("data: "))["x_tinybrain"]["receipt"]


def test_the_native_format_tells_perplexity_then_tokens_then_done(service, caller):
    first, *tokens, last = caller.stream(service, HELLO, path="/chat/completions")
    assert first["perplexity"] > 1
    assert all(token.keys() == {"token", "gpu"} for token in tokens)
    assert "".join(token["token"] for token in tokens).strip()
    assert last["done"] is True
    service.settled(last["x_tinybrain"]["receipt"])
    assert caller.balance() == 990_000


def test_in_the_native_format_tinychat_answers_hard_questions_too(service, caller):
    last = caller.stream(service, THINK, path="/chat/completions")[-1]
    assert last["x_tinybrain"]["answered_by"] == "tinychat"
    service.settled(last["x_tinybrain"]["receipt"])


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_the_operators_key_is_answered_without_a_payment(service, path):
    key = service.settings.api_key.get_secret_value()
    body = HELLO | {"stream": True}
    answer = httpx.post(service.url + path, json=body, headers={"X-API-Key": key}, timeout=30)
    assert answer.status_code == 200
    answer_id = answer.headers["x-tinybrain-receipt"]
    (row,) = service.rows("answers", f"id = '{answer_id}'")
    assert (row["credential"], row["price"], row["outcome"]) == ("api_key", 0, "completed")
    assert service.rows("payments", f"answer_id = '{answer_id}'") == []


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_a_wrong_key_is_refused(service, path):
    answer = httpx.post(service.url + path, json=HELLO, headers={"X-API-Key": "guess"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_service_without_a_key_lets_nobody_in_with_one(open_service):
    with open_service(api_key=None) as service:
        answer = httpx.post(
            f"{service.url}/chat/completions", json=HELLO, headers={"X-API-Key": ""}
        )
    assert answer.status_code == 401
