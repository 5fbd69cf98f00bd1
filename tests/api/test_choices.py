"""Choices that are made side by side, without a service."""

import asyncio
from contextlib import aclosing

import pytest

from tinybrain.api.choices import Choice, Part, merged
from tinybrain.chat import TokenLogprob
from tinybrain.errors import LocalModelError
from tinybrain.routing.events import Delta


class Speaker:
    """A choice that says words, each once it may, or breaks; knows whether it was closed."""

    def __init__(self, *words):
        self._words = words
        self.turn = asyncio.Semaphore(0)
        self.closed = False

    async def events(self):
        try:
            for word in self._words:
                await self.turn.acquire()
                if isinstance(word, Exception):
                    raise word
                yield Delta(word)
        finally:
            self.closed = True


async def test_events_come_in_the_order_in_which_the_choices_make_them():
    speakers = [Speaker("a", "b"), Speaker("x", "y")]
    async with aclosing(merged([speaker.events() for speaker in speakers])) as parts:
        for choice, word in ((1, "x"), (0, "a"), (0, "b"), (1, "y")):
            speakers[choice].turn.release()
            assert await anext(parts) == Part(choice, Delta(word))
        with pytest.raises(StopAsyncIteration):
            await anext(parts)


async def test_the_first_failure_comes_after_what_was_said_and_closes_the_others():
    waiting, breaking = Speaker("never"), Speaker("a", LocalModelError("It broke."))
    for _ in range(2):
        breaking.turn.release()
    parts = merged([waiting.events(), breaking.events()])
    assert await anext(parts) == Part(1, Delta("a"))
    with pytest.raises(LocalModelError, match="It broke"):
        await anext(parts)
    assert (waiting.closed, breaking.closed) == (True, True)


async def test_who_stops_reading_or_is_cancelled_closes_every_choice():
    speakers = [Speaker("a", "b"), Speaker("x")]
    speakers[0].turn.release()
    parts = merged([speaker.events() for speaker in speakers])
    await anext(parts)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(parts)
    assert [speaker.closed for speaker in speakers] == [True, True]


def test_a_choice_is_the_sum_of_its_pieces():
    choice, token = Choice(), TokenLogprob(b"a", -1.0)
    for event in (Delta("a", (token,)), Delta("b", (token,))):
        choice.note(event)
    assert (choice.content, choice.logprobs) == ("ab", [token, token])
