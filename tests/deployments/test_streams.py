"""Streams between deployments, without a cluster."""

import asyncio

import pytest
from ray import serve

from deployments.streams import batches, flatten
from tinybrain.errors import InvalidRequest, LocalModelError


async def numbers(count, pause=None):
    for number in range(count):
        if pause:
            await asyncio.sleep(pause)
        yield number


async def test_nothing_is_lost_or_reordered():
    received = [batch async for batch in batches(numbers(1000))]
    assert [number for batch in received for number in batch] == list(range(1000))


async def test_the_first_event_does_not_wait_for_the_second():
    stream = batches(numbers(5, pause=0.05))
    assert await anext(stream) == [0]
    await stream.aclose()


async def test_events_that_wait_together_travel_together():
    received = [batch async for batch in batches(numbers(100))]
    assert len(received) < 50


async def test_a_failure_comes_after_what_was_produced_before_it():
    async def failing():
        yield 1
        raise LocalModelError("broke")

    stream = batches(failing())
    assert await anext(stream) == [1]
    with pytest.raises(LocalModelError):
        await anext(stream)


async def test_closing_early_closes_the_source():
    closed = asyncio.Event()

    async def source():
        try:
            while True:
                await asyncio.sleep(0.001)
                yield 1
        finally:
            closed.set()

    stream = batches(source())
    await anext(stream)
    await stream.aclose()
    assert closed.is_set()


class Numbers:
    """A deployment that streams two numbers and then fails, if told so."""

    async def generate(self, error):
        yield [1, 2]
        if error:
            raise error


@pytest.fixture
def stream():
    handle = serve.run(
        serve.deployment(Numbers).bind(), _local_testing_mode=True, name="streams"
    ).options(stream=True)
    return lambda error=None: flatten(handle.generate.remote(error), LocalModelError, "The model")


async def test_a_remote_stream_is_flattened(stream):
    assert [event async for event in stream()] == [1, 2]


async def test_our_errors_keep_their_type_across_a_handle(stream):
    events = stream(InvalidRequest("too long", param="messages"))
    assert [await anext(events), await anext(events)] == [1, 2]
    with pytest.raises(InvalidRequest, match="too long"):
        await anext(events)
