import json
from pathlib import Path

import pytest

from tinybrain.chat import Message
from tinybrain.engine.rendering import Part, PartedMessage, fit, render
from tinybrain.errors import InvalidRequest

VECTORS = json.loads((Path(__file__).parent / "data/tokenizer/vectors.json").read_text())


def turn(message):
    role, content = message["role"], message["content"]
    if isinstance(content, str):
        return Message(role, content)
    return PartedMessage(role, [Part(part["type"], part["text"]) for part in content])


def conversation(*roles):
    return [Message(role, f"I am {role}") for role in roles]


@pytest.mark.parametrize("case", VECTORS["conversations"])
def test_conversations_render_as_in_nanochat(golden_tokenizer, case):
    assert render(golden_tokenizer, [turn(m) for m in case["messages"]]) == case["ids"]


@pytest.mark.parametrize(
    "roles",
    [
        (),
        ("system",),
        ("assistant",),
        ("user", "assistant"),
        ("user", "user"),
        ("system", "assistant", "user"),
        ("user", "system", "user"),
        ("user", "assistant", "system"),
    ],
)
def test_what_cannot_be_rendered_is_refused(golden_tokenizer, roles):
    with pytest.raises(InvalidRequest) as refusal:
        render(golden_tokenizer, conversation(*roles))
    assert refusal.value.param == "messages"


def test_the_callers_messages_are_left_alone(golden_tokenizer):
    messages = conversation("system", "user", "assistant", "user")
    before = list(messages)
    render(golden_tokenizer, messages)
    assert messages == before


def test_too_long_a_conversation_loses_whole_turns_from_the_front(golden_tokenizer):
    messages = conversation("user", "assistant", "user", "assistant", "user")
    whole, latest = (render(golden_tokenizer, m) for m in (messages, messages[2:]))
    assert fit(golden_tokenizer, whole, len(whole)) == whole
    for budget in range(len(latest), len(whole)):
        assert fit(golden_tokenizer, whole, budget) == latest
    assert fit(golden_tokenizer, whole, len(latest) - 1) == render(golden_tokenizer, messages[4:])


def test_too_long_a_message_keeps_its_end(golden_tokenizer):
    ids = render(golden_tokenizer, [Message("user", "0123456789")])
    assert fit(golden_tokenizer, ids, 6) == [*ids[:2], *ids[-4:]]
