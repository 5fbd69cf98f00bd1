"""Reads what models yield: the small one's opening together, then event by event; and closes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from tinybrain.chat import Finished, LocalEvent, Token
from tinybrain.errors import LocalModelError

E = TypeVar("E")


async def hold_back(
    events: AsyncIterator[LocalEvent], tokens: int, declines: str | None = None
) -> tuple[list[Token | Finished], str]:
    """Take at least `tokens` tokens, fewer at the end.

    More while there is nothing to show, or while what is there may yet begin with `declines`.

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
        may_decline = declines is not None and text != declines and declines.startswith(text)
        if isinstance(event, Finished) or (has_text and len(held) >= tokens and not may_decline):
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


@asynccontextmanager
async def closing(events: AsyncIterator[E]) -> AsyncIterator[None]:
    """Close `events` in the end, if it can be: the protocols promise an iterator, no generator."""
    try:
        yield
    finally:
        if aclose := getattr(events, "aclose", None):
            await aclose()
