"""Streams between deployments: events travel in batches, errors keep their type.

Each message between Serve replicas costs about half a millisecond, so whatever was produced
while the last message was on its way goes out as one; the first event never waits.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError

from tinybrain.errors import AnswerFailed, Busy, TinyBrainError

E = TypeVar("E")


async def batches(events: AsyncIterator[E]) -> AsyncGenerator[list[E], None]:
    """Group events by what is ready; ends or fails as `events` does."""
    queue: asyncio.Queue[E | None] = asyncio.Queue()

    async def produce() -> None:
        try:
            async for event in events:
                queue.put_nowait(event)
        finally:
            queue.put_nowait(None)

    producer = asyncio.create_task(produce())
    try:
        ended = False
        while not ended:
            batch = [await queue.get()]
            while not queue.empty():
                batch.append(queue.get_nowait())
            ended = None in batch
            ready = [event for event in batch if event is not None]
            if ready:
                yield ready
        await producer
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)
        if aclose := getattr(events, "aclose", None):
            await aclose()


async def flatten(
    response: Any,  # a DeploymentResponseGenerator, whose types Ray does not tell apart
    failure: type[AnswerFailed],
    name: str,
) -> AsyncGenerator[Any, None]:
    """The events of a remote stream of batches; closing it cancels the remote work.

    Raises:
        TinyBrainError: The remote side raised it.
        Busy: The deployment's queue is full.
        AnswerFailed: The replica died; `failure` is the kind raised.
    """
    ended = False
    try:
        async for batch in response:
            for event in batch:
                yield event
        ended = True
    except RayTaskError as error:
        ended = True
        if isinstance(error.cause, TinyBrainError):
            raise error.cause from None
        raise failure(f"{name} failed inside.") from error
    except BackPressureError as error:
        ended = True
        raise Busy(f"{name} has no capacity now. Try again.") from error
    except RayError as error:
        ended = True
        raise failure(f"{name} died while it answered.") from error
    finally:
        if not ended:
            response.cancel()
