"""Reads the answer of the small model: its opening together, then event by event."""

from collections.abc import AsyncIterator

from tinybrain.chat import Finished, LocalEvent, Token
from tinybrain.errors import LocalModelError


async def hold_back(
    events: AsyncIterator[LocalEvent], tokens: int
) -> tuple[list[Token | Finished], str]:
    """Take at least `tokens` tokens, more while there is nothing to show, fewer at the end.

    Raises:
        LocalModelError: It answered nothing, or broke off.
    """
    held: list[Token | Finished] = []
    text = ""
    while True:
        event = await next_event(events)
        held.append(event)
        text += event.text
        has_text = bool(text) and not text.isspace()
        if isinstance(event, Finished) and not has_text:
            raise LocalModelError("TinyChat answered nothing.")
        if isinstance(event, Finished) or (has_text and len(held) >= tokens):
            return held, text


async def next_event(events: AsyncIterator[LocalEvent]) -> Token | Finished:
    """The next of the answer.

    Raises:
        LocalModelError: There is none.
    """
    event = await anext(events, None)
    if not isinstance(event, Token | Finished):
        raise LocalModelError("TinyChat's answer broke off.")
    return event
