"""Labels a random share of the answers in the background: was the small model right?

An answer that the small model gave is audited: the larger one is asked the same, within a budget,
and the two are compared. An answer that was bought is compared with a new draft of the small
model, made as the caller's would have been. Both are chosen with the same probability, so that the
labels are a fair sample of what the gate judges; where the budget of audits ends, the other waits
until one was bought again.

Nothing here is on a caller's way: one answer is labelled at a time, what does not fit into the
queue is dropped, and what is under way when the service ends is given up. Texts are never kept.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from tinybrain.chat import Finished, LocalModel, Message, Sampling, Text, Upstream
from tinybrain.errors import BudgetExceeded, TinyBrainError
from tinybrain.payments.records import AUDIT, Label
from tinybrain.routing.calibration.collecting import drafted
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.online.agreement import agrees
from tinybrain.routing.online.allowance import Allowance
from tinybrain.routing.online.book import Book
from tinybrain.routing.signals import Signals

Source = Literal["audit", "escalated"]
Ended = Literal["right", "wrong", "undecided", "failed", "budget", "dropped"]

QUEUE = 32
TIMEOUT_S = 120.0
"""For one label; a reasoning model may take its time."""
PAUSE_S = 600.0
"""After the budget refused an audit."""
LONGEST_DRAFT = 256
"""Tokens; longer answers cannot be compared anyway."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer that the gate judged, as the caller got it.

    `source` is "audit" where the small model gave it, with the `signals` that were judged. Each
    model is asked again as it was, or would have been.
    """

    answer_id: str
    source: Source
    messages: Sequence[Message]
    text: str
    signals: Signals
    sampling: Sampling
    local_sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The small model that is labelled, as its router describes it."""

    checkpoint: str
    hold_back_tokens: int
    declines: str | None

    @classmethod
    def of(cls, router: Router) -> Self:
        """What a router tells of it."""
        return cls(
            checkpoint=router.checkpoint,
            hold_back_tokens=router.hold_back_tokens,
            declines=router.declines,
        )


class Auditor:
    """Chooses answers with probability `share`, and labels them one after the other.

    `most_audits` is how many audits are bought in 24 hours; None leaves that to who sells them.
    """

    def __init__(
        self,
        *,
        local: LocalModel,
        upstream: Upstream,
        book: Book,
        subject: Subject,
        share: float,
        ended: Callable[[Source, Ended], object],
        most_audits: int | None = None,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._local = local
        self._upstream = upstream
        self._book = book
        self._subject = subject
        self._share = share
        self._ended = ended
        self._allowance = Allowance(most_audits)
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._draw = draw
        self._queue: asyncio.Queue[Answered] = asyncio.Queue(QUEUE)
        self._paused_until = 0.0
        self._was_refused = False  # an audit, and none was bought since

    def offer(self, answered: Answered) -> None:
        """Perhaps label this answer, later. Returns at once and never raises."""
        if self._draw() >= self._share or not self._is_open(answered.source):
            return
        try:
            self._queue.put_nowait(answered)
        except asyncio.QueueFull:
            self._ended(answered.source, "dropped")

    async def run(self) -> None:
        """Label what was offered, until cancelled."""
        while True:
            answered = await self._queue.get()
            is_open = self._is_open(answered.source)  # may have changed while it waited
            self._ended(answered.source, await self._try(answered) if is_open else "dropped")
            self._queue.task_done()

    async def settled(self) -> None:
        """Wait until everything that was offered is labelled."""
        await self._queue.join()

    def _is_open(self, source: Source) -> bool:
        """Whether its labels would be a fair sample together with the other's."""
        if asyncio.get_running_loop().time() < self._paused_until:
            return False
        return source == "audit" or not self._was_refused

    async def _try(self, answered: Answered) -> Ended:
        try:
            async with asyncio.timeout(self._timeout_s):
                label = await self._label(answered)
                if label is None:
                    return "undecided"
                await self._book.record(label)
        except BudgetExceeded as error:
            self._was_refused = True
            self._paused_until = asyncio.get_running_loop().time() + self._pause_s
            logger.info("No audits for %.0f s: %s", self._pause_s, error.message)
            return "budget"
        except (TinyBrainError, TimeoutError) as error:
            logger.info("An answer could not be labelled: %s", error)
            return "failed"
        except Exception:
            logger.exception("An answer could not be labelled.")
            return "failed"
        return "right" if label.is_right else "wrong"

    async def _label(self, answered: Answered) -> Label | None:
        question = next((m.content for m in reversed(answered.messages) if m.role == "user"), "")
        if answered.source == "audit":
            signals, declined = answered.signals, False
            small, larger = answered.text, await self._bought(answered)
        else:
            draft, signals = await self._draft(answered)
            declines = self._subject.declines
            declined = declines is not None and draft.startswith(declines)
            small, larger = draft, answered.text
        # Streams go on meanwhile: long texts take some milliseconds.
        right = False if declined else await asyncio.to_thread(agrees, question, small, larger)
        if right is None:
            return None
        return Label(
            checkpoint=self._subject.checkpoint,
            source=answered.source,
            signals=signals.recorded(),
            is_declined=declined,
            is_right=right,
            probability=self._share,
        )

    async def _bought(self, answered: Answered) -> str:
        """The larger model's answer; nothing where it was cut short."""
        self._allowance.take()
        audit_id = AUDIT + answered.answer_id.removeprefix("ans_")
        text, is_whole = "", False
        events = self._upstream.generate(answered.messages, answered.sampling, answer_id=audit_id)
        async for event in events:
            if isinstance(event, Text):
                text += event.text
            elif isinstance(event, Finished):
                text, is_whole = text + event.text, event.reason == "stop"
        self._was_refused = False
        return text if is_whole else ""

    async def _draft(self, answered: Answered) -> tuple[str, Signals]:
        asked = answered.local_sampling
        sampling = replace(
            asked, max_tokens=min(asked.max_tokens, LONGEST_DRAFT), logprobs=False, top_logprobs=0
        )
        return await drafted(
            self._local, answered.messages, sampling, self._subject.hold_back_tokens
        )
