"""Chunks of a chat completion become text, reasoning and an end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.chat import Finished, Text, Thought
from tinybrain.errors import UpstreamError
from tinybrain.upstreams.completion import CompletionReader, excerpt
from tinybrain.usdc import Usdc


def chunk(finish_reason=None, **delta):
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def read(*chunks):
    reader = CompletionReader()
    events = [event for data in chunks for event in reader.read(data)]
    events += reader.close()
    return [*events, reader.end(cost=Usdc(7), transaction="0xabc")]


def test_content_is_text_and_the_end_carries_cost_and_transaction():
    assert read(chunk(role="assistant", content=""), chunk(content="Hi"), chunk("stop")) == [
        Text("Hi"),
        Finished("stop", 0, 1, cost=Usdc(7), transaction="0xabc"),
    ]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_of_either_name_is_a_thought(field):
    assert read(chunk(**{field: "Hm"}), chunk("stop", content="Hi"))[:2] == [
        Thought("Hm"),
        Text("Hi"),
    ]


def test_inline_reasoning_is_a_thought_though_its_tag_is_cut():
    events = read(chunk(content="<thi"), chunk(content="nk>Hm</think>Hi"), chunk("stop"))
    assert events[:2] == [Thought("Hm"), Text("Hi")]


def test_what_only_began_like_a_tag_is_part_of_the_answer():
    assert read(chunk(content="1 <"), chunk("stop"))[:2] == [Text("1 "), Text("<")]


def test_reasoning_that_is_no_text_is_passed_over():
    assert read(chunk("stop", reasoning={"tokens": 3}, content="Hi"))[0] == Text("Hi")


def test_reported_usage_wins_over_counting():
    usage = '{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}'
    assert read(chunk("length", content="Hi"), usage)[-1] == Finished(
        "length", 5, 9, cost=Usdc(7), transaction="0xabc"
    )


def test_an_unstreamed_message_is_read_like_a_delta():
    message = {"role": "assistant", "content": "Hi", "reasoning_content": "Hm"}
    whole = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    assert read(whole)[:2] == [Thought("Hm"), Text("Hi")]


def test_done_ends_an_answer_that_gave_no_reason():
    assert read(chunk(content="Hi"), "[DONE]")[-1].reason == "stop"


def test_only_the_first_choice_is_read():
    second = '{"choices": [{"index": 1, "delta": {"content": "other"}}]}'
    assert read(chunk(content="Hi"), second, "[DONE]")[:-1] == [Text("Hi")]


def test_an_answer_without_an_end_is_truncated():
    with pytest.raises(UpstreamError, match="truncated"):
        read(chunk(content="Hi"))


@pytest.mark.parametrize(
    "data",
    [
        '{"error": {"message": "no such model"}}',
        '{"error": "no such model"}',
        '{"choices": [], "error": {"message": "no such model", "code": 404}}',
    ],
)
def test_an_error_event_is_raised_with_its_message(data):
    with pytest.raises(UpstreamError, match="no such model"):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "nonsense",
        "[]",
        "3",
        '{"choices": 1}',
        '{"choices": [{"delta": {"content": 5}}]}',
        chunk("error"),
        pytest.param("[" * 100_000, id="deeply nested"),
    ],
)
def test_what_is_no_completion_is_an_upstream_error(data):
    with pytest.raises(UpstreamError):
        read(data)


@given(st.text())
def test_no_data_raises_anything_but_an_upstream_error(data):
    try:
        read(data)
    except UpstreamError:
        return
    assert data == "[DONE]"


def test_an_excerpt_is_one_short_printable_line():
    assert excerpt("a\n\x1b[31m b\t" + "c" * 999) == "a [31m b " + "c" * 191
