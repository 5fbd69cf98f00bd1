"""Conversations as token ids, the way nanochat renders them for completion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tinybrain.chat import Message, Role
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an assistant's turn: text, a tool call, or what the tool answered."""

    kind: Literal["text", "python", "python_output"]
    text: str


@dataclass(frozen=True, slots=True)
class PartedMessage:
    """A turn whose content is a list of parts."""

    role: Role
    content: Sequence[Part]


Turn = Message | PartedMessage


def render(tokenizer: Tokenizer, turns: Sequence[Turn]) -> list[int]:
    """Token ids of a conversation, ending where the assistant begins to answer.

    A system message is put before the first user message, two newlines between them.

    Raises:
        InvalidRequest: Roles do not alternate from user to user.
    """
    turns = _merge_system(turns)
    for index, turn in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if turn.role != expected:
            raise InvalidRequest(
                f"Message {index + 1} (system message aside) has role {turn.role!r}; user and "
                "assistant alternate, beginning with user.",
                param="messages",
            )
    if len(turns) % 2 == 0:
        raise InvalidRequest("The last message must be the user's.", param="messages")
    ids = [tokenizer.special("bos")]
    for turn in turns:
        ids.append(tokenizer.special(f"{turn.role}_start"))
        ids.extend(_content(tokenizer, turn.content))
        ids.append(tokenizer.special(f"{turn.role}_end"))
    ids.append(tokenizer.special("assistant_start"))
    return ids


def _merge_system(turns: Sequence[Turn]) -> Sequence[Turn]:
    match turns:
        case [Message("system", system), Message("user", user), *rest]:
            return [Message("user", f"{system}\n\n{user}"), *rest]
        case _:
            return turns


def _content(tokenizer: Tokenizer, content: str | Sequence[Part]) -> Iterable[int]:
    if isinstance(content, str):
        yield from tokenizer.encode(content)
        return
    for part in content:
        ids = tokenizer.encode(part.text)
        if part.kind == "text":
            yield from ids
        else:
            name = "python" if part.kind == "python" else "output"
            yield tokenizer.special(f"{name}_start")
            yield from ids
            yield tokenizer.special(f"{name}_end")


def fit(tokenizer: Tokenizer, ids: Sequence[int], budget: int) -> list[int]:
    """Shorten a rendered conversation to at most `budget` tokens, dropping the oldest turns.

    What is left begins with bos and a whole user turn; if not even the last one fits, with its
    end.
    """
    if len(ids) <= budget:
        return list(ids)
    tail = list(ids[len(ids) - budget + 1 :])
    user_start = tokenizer.special("user_start")
    begin = tail.index(user_start) if user_start in tail else 0
    return [tokenizer.special("bos"), user_start, *tail[begin + 1 :]]
