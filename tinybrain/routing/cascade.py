"""The cascade: TinyChat answers what it is sure of, a larger model is bought for the rest.

TinyChat's first tokens are held back until the gate has judged them, so that a change of mind
costs the caller nothing and no word that was shown is ever taken back. Doubt that arises later in
its answer has the larger model continue it.

While the upstream is asked, the local draft is closed, not kept: a slot of the engine is worth
more than the rare draft that is needed again because the upstream failed. That one is generated
anew. Only while a continuation is asked for does the draft wait, unread, to go on if none comes.

Knows models only by their protocols; nothing of HTTP, tensors or payments.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal

from tinybrain.chat import (
    Finished,
    LocalEvent,
    LocalModel,
    Message,
    Prefilled,
    Sampling,
    Thought,
    Token,
    Upstream,
    UpstreamEvent,
)
from tinybrain.errors import LocalModelError, TinyBrainError, UpstreamError
from tinybrain.routing.continuation import continuation_messages
from tinybrain.routing.events import (
    AnsweredBy,
    AnswerEvent,
    Completed,
    Continued,
    Decision,
    Delta,
    EscalationReason,
    ReasoningDelta,
)
from tinybrain.routing.gate import Gate, Verdict
from tinybrain.routing.handover import handed_over
from tinybrain.routing.model_events import closing, hold_back, next_event
from tinybrain.routing.rules import Rules
from tinybrain.routing.signals import Signals
from tinybrain.routing.watched_draft import Watch, WatchedDraft

Policy = Literal["auto", "local", "upstream"]
"""Who may answer: the cascade decides, TinyChat alone, or the larger model alone."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Question:
    messages: Sequence[Message]
    sampling: Sampling
    local_sampling: Sampling
    answer_id: str

    def continuing(self, draft: WatchedDraft) -> "_Question":
        """What is asked to continue a draft; its tokens count."""
        left = max(1, self.sampling.max_tokens - draft.shown_tokens)
        return replace(
            self,
            messages=continuation_messages(self.messages, draft.shown),
            sampling=replace(self.sampling, max_tokens=left),
        )


@dataclass(slots=True)
class _Course:
    """What became known on the way; `decided` says that the caller has seen who answers.

    `bought` is the end of what was paid for, shown or not.
    """

    reason: EscalationReason = "none"
    rule: str | None = None
    prefilled: Prefilled | None = None
    confidence: float | None = None
    signals: Signals | None = None
    decided: bool = False
    draft: WatchedDraft | None = None
    bought: Finished | None = None

    def judged(self, signals: Signals, verdict: Verdict) -> None:
        self.signals = signals
        self.confidence = 1 - verdict.p_wrong

    def watch(self, gate: Gate | None) -> Watch | None:
        if gate is None or gate.later is None or self.signals is None:
            return None
        return Watch(gate.later, gate.hold_back_tokens, self.signals)

    def decide(self, by: AnsweredBy, model: str, *, fallback: bool = False) -> Decision:
        self.decided = True
        return Decision(
            answered_by=by,
            model=model,
            reason=self.reason,
            rule=self.rule,
            perplexity=self.prefilled.perplexity if self.prefilled else None,
            confidence=self.confidence,
            signals=self.signals,
            fallback=fallback,
        )


class Cascade:
    """The way to answer with one small and one larger model.

    `gate` may be replaced at any time: a question goes by the one that it finds.
    """

    def __init__(
        self,
        local: LocalModel,
        upstream: Upstream,
        *,
        rules: Rules,
        gate: Gate,
        first_event_timeout_s: float = 30,
    ) -> None:
        self._local = local
        self._upstream = upstream
        self._rules = rules
        self.gate = gate
        self._first_event_timeout_s = first_event_timeout_s

    def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        answer_id: str,
        policy: Policy = "auto",
        local_sampling: Sampling | None = None,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Yield a Prefilled where TinyChat read the prompt, a Decision, the text, a Completed.

        Where TinyChat comes to doubt in the middle, a Continued says who goes on from there.
        Policy "local" asks TinyChat alone and holds nothing back, "upstream" asks the larger
        model alone. `local_sampling` is TinyChat's, where it differs. Closing the generator
        closes the model's that is open.

        Raises:
            LocalModelError: TinyChat failed, and its words had been shown or nobody else may
                answer. With policy "local", also Busy and InvalidRequest as TinyChat raised them.
            UpstreamError: The larger model failed, and its words had been shown or TinyChat
                could not stand in.
        """
        question = _Question(messages, sampling, local_sampling or sampling, answer_id)
        match policy:
            case "auto":
                return self._cascade(question)
            case "local":
                return self._from_local(question, _Course())
            case "upstream":
                return self._from_upstream(question, _Course())

    async def _cascade(self, question: _Question) -> AsyncGenerator[AnswerEvent, None]:
        ruling = self._rules.decide(question.messages)
        course = _Course(ruling.reason, ruling.rule or ruling.prior)
        if ruling.verdict != "escalate":
            gate = self.gate if ruling.verdict is None else None
            async with aclosing(self._draft(question, course, gate)) as events:
                async for event in events:
                    yield event
        if not course.decided:
            async with aclosing(self._escalate(question, course)) as events:
                async for event in events:
                    yield event

    async def _draft(
        self, question: _Question, course: _Course, gate: Gate | None
    ) -> AsyncGenerator[AnswerEvent, None]:
        """TinyChat's answer, or nothing decided where it failed or was not sure.

        Before it would go on in doubt it says so, and waits: only if it is read on does it go on.
        """
        try:
            async with aclosing(self._from_local(question, course, gate)) as events:
                async for event in events:
                    if not isinstance(event, Continued):
                        yield event
                        continue
                    async with aclosing(self._continue(question, course, event)) as rest:
                        async for more in rest:
                            if isinstance(more, Delta):  # the draft is not needed again
                                await events.aclose()
                            yield more
        except Exception:
            if course.decided:
                raise
            logger.warning("TinyChat failed, the upstream answers", exc_info=True)
            course.reason = "failure"

    async def _continue(
        self, question: _Question, course: _Course, otherwise: Continued
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The rest of the answer by the upstream, or `otherwise` where it could not begin."""
        draft, prefilled = course.draft, course.prefilled
        if draft is None or prefilled is None:
            raise ValueError("only a draft that was begun can be continued")
        name, purchase, begun = self._upstream.name, _Course(), False
        try:
            events = handed_over(
                self._from_upstream(question.continuing(draft), purchase),
                shown=draft.shown,
                prompt_tokens=prefilled.prompt_tokens,
                shown_tokens=draft.shown_tokens,
                told=replace(otherwise, answered_by="upstream", model=name, fallback=False),
            )
            async with aclosing(events) as rest:
                async for event in rest:
                    begun = begun or isinstance(event, Delta)
                    yield event
        except UpstreamError as error:
            if begun:
                raise
            logger.warning("%s failed, TinyChat goes on: %s", name, error)
            course.bought = purchase.bought
            yield otherwise

    async def _escalate(
        self, question: _Question, course: _Course
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The upstream's answer, or TinyChat's where the upstream could not begin."""
        try:
            async with aclosing(self._from_upstream(question, course)) as events:
                async for event in events:
                    yield event
        except UpstreamError as error:
            if course.decided or course.reason == "failure":
                raise
            logger.warning("%s failed, TinyChat answers: %s", self._upstream.name, error)
            unavailable = error
        else:
            return
        try:
            async with aclosing(self._from_local(question, course, fallback=True)) as events:
                async for event in events:
                    yield event
        except Exception as error:
            if course.decided:
                raise
            raise unavailable from error

    async def _from_local(
        self,
        question: _Question,
        course: _Course,
        gate: Gate | None = None,
        *,
        fallback: bool = False,
    ) -> AsyncGenerator[AnswerEvent, None]:
        async with self._open_local(question, course) as events:
            deadline = asyncio.get_running_loop().time() + self._first_event_timeout_s
            async with self._soon(deadline):
                prefilled = await anext(events, None)
            if not isinstance(prefilled, Prefilled):
                raise LocalModelError("TinyChat did not read the prompt.")
            if course.prefilled is None:
                course.prefilled = prefilled
                yield prefilled

            if gate and not _admits(gate, prefilled, course):
                return
            async with self._soon(deadline):
                at_least, declines = (gate.hold_back_tokens, gate.declines) if gate else (1, None)
                held, text = await hold_back(events, at_least, declines)
            if gate and not _releases(gate, held, text, course):
                return

            yield course.decide("tinychat", self._local.name, fallback=fallback)
            course.draft = draft = WatchedDraft(held, course.watch(gate))
            while True:
                if delta := draft.take():
                    yield delta
                if draft.doubt and gate and gate.later:
                    yield Continued(
                        answered_by="tinychat",
                        model=self._local.name,
                        reason="later_doubt",
                        confidence=1 - gate.later.estimate(draft.doubt),
                        signals=draft.doubt,
                        fallback=True,
                    )
                    draft.trust()
                elif draft.end:
                    break
                else:
                    draft.add(await next_event(events))
        yield _completed(draft.end, course.bought or draft.end)

    async def _from_upstream(
        self, question: _Question, course: _Course
    ) -> AsyncGenerator[AnswerEvent, None]:
        answered = False
        async with self._open_upstream(question) as events:
            event = await self._first_event(events)
            while True:
                if event is None:
                    raise UpstreamError(f"The answer of {self._upstream.name} broke off.")
                if event.text and not course.decided:
                    yield course.decide("upstream", self._upstream.name)
                if event.text and isinstance(event, Thought):
                    yield ReasoningDelta(event.text)
                elif event.text:
                    answered = answered or not event.text.isspace()
                    yield Delta(event.text)
                if isinstance(event, Finished):
                    course.bought = event
                    break
                event = await anext(events, None)
            if not answered:
                raise UpstreamError(f"{self._upstream.name} answered nothing.")
        yield _completed(event, event)

    @asynccontextmanager
    async def _soon(self, deadline: float) -> AsyncIterator[None]:
        """TinyChat must show its first words in time, else the upstream answers."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            raise LocalModelError(
                f"TinyChat did not begin within {self._first_event_timeout_s:g} s."
            ) from None

    async def _first_event(self, events: AsyncIterator[UpstreamEvent]) -> UpstreamEvent | None:
        try:
            async with asyncio.timeout(self._first_event_timeout_s):
                return await anext(events, None)
        except TimeoutError:
            raise UpstreamError(
                f"{self._upstream.name} did not begin within {self._first_event_timeout_s:g} s."
            ) from None

    @asynccontextmanager
    async def _open_local(
        self, question: _Question, course: _Course
    ) -> AsyncIterator[AsyncIterator[LocalEvent]]:
        try:
            events = self._local.generate(question.messages, question.local_sampling)
            async with closing(events):
                yield events
        except LocalModelError:
            raise
        except Exception as error:
            # Before the first word the caller may still be told Busy or InvalidRequest as it is.
            if isinstance(error, TinyBrainError) and not course.decided:
                raise
            raise LocalModelError("TinyChat failed.") from error

    @asynccontextmanager
    async def _open_upstream(
        self, question: _Question
    ) -> AsyncIterator[AsyncIterator[UpstreamEvent]]:
        try:
            events = self._upstream.generate(
                question.messages, question.sampling, answer_id=question.answer_id
            )
            async with closing(events):
                yield events
        except UpstreamError:
            raise
        except Exception as error:
            raise UpstreamError(f"{self._upstream.name} failed.") from error


def _admits(gate: Gate, prefilled: Prefilled, course: _Course) -> bool:
    signals = Signals.of([], prefilled)
    verdict = gate.judge_prompt(signals)
    if not verdict.passes:
        course.judged(signals, verdict)
        course.reason = "out_of_scope"
    return verdict.passes


def _releases(gate: Gate, held: Sequence[Token | Finished], text: str, course: _Course) -> bool:
    signals = Signals.of_opening(held, gate.hold_back_tokens, course.prefilled)
    declined = gate.is_declined(text)
    verdict = gate.judge_opening(signals, declined=declined)
    course.judged(signals, verdict)
    if not verdict.passes:
        course.reason = "declined" if declined else "uncertainty"
    return verdict.passes


def _completed(end: Finished, bought: Finished) -> Completed:
    return Completed(
        end.reason, end.prompt_tokens, end.completion_tokens, bought.cost, bought.transaction
    )
