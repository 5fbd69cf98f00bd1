"""The original's chat events, for its page and clients."""

import json

import httpx
import pytest

from tinybrain.api.choices import Part
from tinybrain.api.original_chat import _stream
from tinybrain.api.running import Receipt
from tinybrain.errors import LocalModelError
from tinybrain.routing.events import Decision, Delta, ReasoningDelta

HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}]}
CHAT = "/api/chat"


def read(text):
    *events, end = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(event) for event in events], end


@pytest.mark.chain
def test_each_event_tells_content_model_and_reason_and_the_last_is_empty(service, caller):
    headers = caller.headers(service, path=CHAT)
    events, end = read(caller.ask(service, HELLO, path=CHAT, headers=headers).text)
    assert end == "[DONE]"
    assert "TinyChat" in "".join(event["content"] for event in events)
    assert {(event["model"], event["escalationReason"]) for event in events} == {
        ("tinychat", "none")
    }
    assert events[-1]["content"] == ""
    assert all("queryCost" not in event for event in events)
    service.settled(events[-1]["x_tinybrain"]["receipt"])
    assert caller.balance() == 990_000


@pytest.mark.chain
def test_a_hard_question_is_answered_by_the_larger_model(service, caller):
    body = {"messages": [{"role": "user", "content": "think hard: why?"}]}
    headers = caller.headers(service, path=CHAT, body=body)
    events, _ = read(caller.ask(service, body, path=CHAT, headers=headers).text)
    assert {(event["model"], event["escalationReason"]) for event in events} == {
        ("blockrun", "keyword")
    }
    service.settled(events[-1]["x_tinybrain"]["receipt"])


@pytest.mark.chain
def test_on_a_tab_each_event_tells_the_cost_in_cents(service, caller):
    tab = caller.open_tab(service, "0.10").json()
    headers = {"X-SESSION-TOKEN": tab["token"]}
    events, _ = read(caller.ask(service, HELLO, path=CHAT, headers=headers).text)
    assert {event["queryCost"] for event in events} == {1}


@pytest.mark.chain
def test_the_operators_key_is_let_in(service):
    headers = {"X-API-Key": service.settings.api_key.get_secret_value()}
    answer = httpx.post(service.url + CHAT, json=HELLO, headers=headers, timeout=30)
    assert answer.status_code == 200


@pytest.mark.chain
def test_without_a_payment_the_price_is_told(service):
    answer = httpx.post(service.url + CHAT, json=HELLO)
    assert (answer.status_code, answer.json()["code"]) == (402, "payment_required")


@pytest.mark.chain
@pytest.mark.parametrize("messages", [None, [], [{"role": "wizard", "content": "Hi"}]])
def test_a_body_without_messages_is_refused(service, messages):
    assert httpx.post(service.url + CHAT, json={"messages": messages}).status_code == 400


@pytest.mark.chain
def test_a_failure_in_the_middle_is_an_error_event(open_service, caller, scripted):
    broken = {"upstream_url": "http://127.0.0.1:1/api/v1"}
    with open_service(scripted("I ", "am ", LocalModelError("It broke.")), **broken) as service:
        headers = caller.headers(service, path=CHAT)
        text = caller.ask(service, HELLO, path=CHAT, headers=headers).text
    assert '{"error":"' in text
    assert "[DONE]" not in text
    assert caller.balance() == 1_000_000


async def test_reasoning_stands_in_a_think_block_before_the_answer():
    async def answer():
        yield Part(0, Decision(answered_by="upstream", model="blockrun", reason="keyword"))
        for thought in ("Let me", " see."):
            yield Part(0, ReasoningDelta(thought))
        yield Part(0, Delta("Light"))
        yield Part(0, Delta(" scatters."))
        yield Receipt("ans_1", {})

    text = b"".join([event async for event in _stream(answer(), {})]).decode()
    events, _ = read(text)
    said = "".join(event["content"] for event in events)
    assert said == "<think>Let me see.</think>Light scatters."


async def test_a_think_block_without_an_answer_is_closed():
    async def answer():
        yield Part(0, Decision(answered_by="upstream", model="blockrun", reason="keyword"))
        yield Part(0, ReasoningDelta("Hm."))
        yield Receipt("ans_1", {})

    events, _ = read(b"".join([event async for event in _stream(answer(), {})]).decode())
    assert "".join(event["content"] for event in events) == "<think>Hm.</think>"
