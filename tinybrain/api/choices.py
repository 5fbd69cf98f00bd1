"""The choices of one answer, made side by side. Knows no wire format and no money.

An answer is sold, recorded and charged as a whole, however many choices it has: if one of them
fails, all of it has failed.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tinybrain.chat import Prefilled, TokenLogprob
from tinybrain.routing.events import AnswerEvent, Completed, Decision, Delta, ReasoningDelta


@dataclass(frozen=True, slots=True)
class Part:
    """An event of one choice; `choice` counts from 0."""

    choice: int
    event: AnswerEvent

    @property
    def is_text(self) -> bool:
        """Whether a reader sees words in it."""
        return isinstance(self.event, Delta | ReasoningDelta)


@dataclass(slots=True)
class Choice:
    """What one choice consists of so far."""

    prefilled: Prefilled | None = None
    decision: Decision | None = None
    reasoning: str = ""
    content: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    completed: Completed | None = None

    def note(self, event: AnswerEvent) -> None:
        """Take in the next event."""
        match event:
            case Prefilled():
                self.prefilled = event
            case Decision():
                self.decision = event
            case ReasoningDelta(text):
                self.reasoning += text
            case Delta(text, logprobs):
                self.content += text
                self.logprobs += logprobs
            case Completed():
                self.completed = event


class _Opening:
    """Holds back words until every choice has some."""

    def __init__(self, choices: int) -> None:
        self._silent = set(range(choices))
        self._early: list[Part] = []

    def let_through(self, part: Part) -> list[Part]:
        """What may be told now that there is another part."""
        if part.is_text:
            self._silent.discard(part.choice)
        if part.choice in self._silent:
            return [part]
        self._early.append(part)
        if self._silent:
            return []
        told, self._early = self._early, []
        return told


async def merged(
    choices: Sequence[AsyncGenerator[AnswerEvent, None]],
) -> AsyncGenerator[Part, None]:
    """Yield the events of all choices as they come; the first failure closes the others.

    No words come before every choice has some: what a caller can make fail, as an answer of
    nothing, fails without having given away the others.

    Raises:
        TinyBrainError: As the choice raised it.
    """
    ready: asyncio.Queue[Part | asyncio.Task[None]] = asyncio.Queue()

    async def make(choice: int, events: AsyncGenerator[AnswerEvent, None]) -> None:
        async with aclosing(events):
            async for event in events:
                ready.put_nowait(Part(choice, event))

    makers = [asyncio.create_task(make(*numbered)) for numbered in enumerate(choices)]
    for maker in makers:
        maker.add_done_callback(ready.put_nowait)
    under_way, opening = len(makers), _Opening(len(makers))
    try:
        while under_way:
            item = await ready.get()
            if isinstance(item, Part):
                for part in opening.let_through(item):
                    yield part
            else:
                item.result()
                under_way -= 1
    finally:
        for maker in makers:
            maker.cancel()
        await asyncio.gather(*makers, return_exceptions=True)
