"""Bounds on what callers send: body size, message count and lengths (TinyChat's own limits)."""

from collections.abc import Sequence
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from tinybrain.chat import Message
from tinybrain.errors import InvalidRequest, RequestTooLarge
from tinybrain.faults import first_fault

M = TypeVar("M", bound=BaseModel)

MAX_BODY_BYTES = 262_144
MAX_MESSAGES = 500
MAX_MESSAGE_CHARS = 8_000
MAX_TOTAL_CHARS = 32_000
MAX_CHOICES = 8
MAX_TOKENS = 4096
"""Of all choices of an answer together: several are not to run out of the time that one has."""


async def read_body(request: Request) -> bytes:
    """The request's body, read no further than its bound.

    Raises:
        RequestTooLarge: It is longer.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestTooLarge(
                f"The body is larger than {MAX_BODY_BYTES} bytes. Send a shorter conversation."
            )
    return bytes(body)


def parse_body(model: type[M], body: bytes) -> M:
    """Read JSON into a model.

    Raises:
        InvalidRequest: It is no JSON object, or a field is wrong; names the first such field.
    """
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not JSON ({error}). Send a JSON object.",
            code="invalid_json",
        ) from None
    if not isinstance(data, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        param, what = first_fault(error)
        raise InvalidRequest(f"{param or 'body'}: {what}.", param=param or None) from None


def check_messages(messages: Sequence[Message]) -> None:
    """Bound a conversation.

    Raises:
        InvalidRequest: Too many messages, an empty or too long one, or the last is not a user's.
    """
    if not messages:
        raise InvalidRequest("Send at least one message.", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequest(
            f"{len(messages)} messages are too many; send at most {MAX_MESSAGES}.",
            param="messages",
            code="too_many_messages",
        )
    for index, message in enumerate(messages):
        if not message.content.strip():
            raise InvalidRequest("A message is empty.", param=f"messages.{index}.content")
        if len(message.content) > MAX_MESSAGE_CHARS:
            raise InvalidRequest(
                f"A message has {len(message.content)} characters; at most {MAX_MESSAGE_CHARS} "
                "are read.",
                param=f"messages.{index}.content",
                code="message_too_long",
            )
    if sum(len(message.content) for message in messages) > MAX_TOTAL_CHARS:
        raise InvalidRequest(
            f"The conversation has more than {MAX_TOTAL_CHARS} characters. Leave out the oldest "
            "turns.",
            param="messages",
            code="context_length_exceeded",
        )
    if messages[-1].role != "user":
        raise InvalidRequest("The last message must be the user's.", param="messages")
