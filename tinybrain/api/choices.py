"""The choices of one answer, made side by side. Knows no wire format and no money.

An answer is sold, recorded and charged as a whole, however many choices it has: if one of them
fails, all of it has failed.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tinybrain.chat import Prefilled, TokenLogprob
from tinybrain.payments.records import MIXED
from tinybrain.routing.events import (
    AnswerEvent,
    Completed,
    Continued,
    Decision,
    Delta,
    ReasoningDelta,
)


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
    """What one choice consists of so far.

    `continued` tells who went on with it in the middle, after `begun` characters.
    """

    prefilled: Prefilled | None = None
    decision: Decision | None = None
    continued: Continued | None = None
    begun: int = 0
    reasoning: str = ""
    content: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    completed: Completed | None = None

    @property
    def written_by(self) -> tuple[str, str] | None:
        """Who wrote it, and the model's name; both "mixed" where a second model went on."""
        if self.decision is None:
            return None
        if self.continued and not self.continued.fallback:
            return MIXED, MIXED
        return self.decision.answered_by, self.decision.model

    @property
    def decisions(self) -> list[Decision | Continued]:
        """What was decided about it, in order."""
        return [made for made in (self.decision, self.continued) if made]

    @property
    def escalation_reason(self) -> str | None:
        """Why the larger model was asked; "none" if it was not."""
        reasons = [made.reason for made in self.decisions if made.reason != "none"]
        return reasons[0] if reasons else "none" if self.decision else None

    @property
    def fallback(self) -> bool:
        """Whether TinyChat stood in for a larger model that could not."""
        return any(made.fallback for made in self.decisions)

    def note(self, event: AnswerEvent) -> None:
        """Take in the next event."""
        match event:
            case Prefilled():
                self.prefilled = event
            case Decision():
                self.decision = event
            case Continued():
                self.continued, self.begun = event, len(self.content)
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
