"""Choices that are made side by side, without a service."""

import asyncio
from contextlib import aclosing

import pytest

from tinybrain.api.choices import Choice, Part, merged
from tinybrain.chat import Prefilled, TokenLogprob
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


async def test_words_come_in_the_order_they_are_made_once_every_choice_has_some():
    speakers = [Speaker("a", "b"), Speaker("x", "y")]
    async with aclosing(merged([speaker.events() for speaker in speakers])) as parts:
        first = asyncio.create_task(anext(parts))
        for _ in range(2):
            speakers[1].turn.release()
        await asyncio.sleep(0.01)
        assert not first.done()
        speakers[0].turn.release()
        told = [await first, await anext(parts), await anext(parts)]
        assert told == [Part(1, Delta("x")), Part(1, Delta("y")), Part(0, Delta("a"))]
        speakers[0].turn.release()
        assert await anext(parts) == Part(0, Delta("b"))
        with pytest.raises(StopAsyncIteration):
            await anext(parts)


async def test_what_comes_before_words_does_not_wait():
    async def reads():
        yield Prefilled(2.0, 5)
        await asyncio.sleep(60)

    async with aclosing(merged([reads(), Speaker("a").events()])) as parts:
        assert await anext(parts) == Part(0, Prefilled(2.0, 5))


async def test_a_failure_before_every_choice_has_words_gives_none_away():
    waiting, breaking = Speaker("all of it"), Speaker(LocalModelError("It broke."))
    for speaker in (waiting, breaking):
        speaker.turn.release()
    with pytest.raises(LocalModelError, match="It broke"):
        await anext(merged([waiting.events(), breaking.events()]))


async def test_the_first_failure_comes_after_what_was_said_and_closes_the_others():
    waiting, breaking = Speaker("b", "never"), Speaker("a", LocalModelError("It broke."))
    waiting.turn.release()
    for _ in range(2):
        breaking.turn.release()
    parts = merged([waiting.events(), breaking.events()])
    assert {(await anext(parts)).event.text for _ in range(2)} == {"a", "b"}
    with pytest.raises(LocalModelError, match="It broke"):
        await anext(parts)
    assert (waiting.closed, breaking.closed) == (True, True)


async def test_who_stops_reading_or_is_cancelled_closes_every_choice():
    speakers = [Speaker("a", "b"), Speaker("x", "y")]
    for speaker in speakers:
        speaker.turn.release()
    parts = merged([speaker.events() for speaker in speakers])
    await anext(parts)
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
