"""What is known of an answer while it is made: its choices, timings, and the record at its end."""

import time
from collections.abc import Iterable
from typing import Any

from tinybrain.api.choices import Choice, Part
from tinybrain.payments.records import MIXED, AnswerRecord
from tinybrain.routing.events import Completed, Continued, Decision
from tinybrain.usdc import Usdc


class Progress:
    """Notes the events of one answer; `started` is perf_counter when its request arrived."""

    def __init__(self, started: float, choices: int) -> None:
        self.choices = [Choice() for _ in range(choices)]
        self._started = started
        self._ttft_ms: float | None = None

    def note(self, part: Part) -> None:
        """Take in the next event."""
        self.choices[part.choice].note(part.event)
        if part.is_text and self._ttft_ms is None:
            self._ttft_ms = self._elapsed_ms()

    @property
    def cost(self) -> Usdc:
        """What was paid upstream for all choices."""
        return Usdc(sum(end.cost for end in self._completed))

    @property
    def transaction(self) -> str | None:
        """The transaction that paid upstream, if it was one alone."""
        hashes = [end.transaction for end in self._completed if end.transaction]
        return hashes[0] if len(hashes) == 1 else None

    @property
    def user_perplexity(self) -> float | None:
        """TinyChat's of the last user message, if it read the prompt."""
        return next((c.prefilled.user_perplexity for c in self.choices if c.prefilled), None)

    def record(self, outcome: str, error: str | None = None) -> AnswerRecord:
        """What the ledger is told at the end.

        Of several choices it is told what all have in common, why the first that was escalated
        was, the least confidence, and the course of each; also of one that two models wrote.
        The signals are of an opening, whatever came later: calibration knows openings.
        """
        writers = [choice.written_by for choice in self.choices if choice.written_by]
        decisions = [made for choice in self.choices for made in choice.decisions]
        opening = _least_sure(choice.decision for choice in self.choices if choice.decision)
        ends = self._completed
        ended = len(ends) == len(self.choices)
        return AnswerRecord(
            outcome=outcome,
            error=None if error is None else error[:300],
            answered_by=_common(by for by, _ in writers),
            model=_common(model for _, model in writers),
            reason=_reason(self.choices),
            rule=next((c.decision.rule for c in self.choices if c.decision), None),
            signals=opening.signals.recorded() if opening and opening.signals else None,
            fallback=any(choice.fallback for choice in self.choices),
            perplexity=next((c.prefilled.perplexity for c in self.choices if c.prefilled), None),
            confidence=_confidence(decisions),
            prompt_tokens=ends[0].prompt_tokens if ended else None,
            completion_tokens=sum(end.completion_tokens for end in ends) if ended else None,
            ttft_ms=self._ttft_ms,
            total_ms=self._elapsed_ms(),
            choices=self._courses(),
        )

    def _courses(self) -> list[dict[str, Any]] | None:
        if len(self.choices) == 1 and self.choices[0].continued is None:
            return None
        return [_course(choice) for choice in self.choices]

    @property
    def _completed(self) -> list[Completed]:
        return [choice.completed for choice in self.choices if choice.completed]

    def _elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)


def _least_sure(decisions: Iterable[Decision]) -> Decision | None:
    judged = [decision for decision in decisions if decision.confidence is not None]
    return min(judged, key=lambda decision: decision.confidence or 0, default=None)


def _confidence(decisions: Iterable[Decision | Continued]) -> float | None:
    told = (decision.confidence for decision in decisions)
    return min((confidence for confidence in told if confidence is not None), default=None)


def _common(values: Iterable[str]) -> str | None:
    different = set(values)
    if len(different) > 1:
        return MIXED
    return next(iter(different), None)


def _reason(choices: Iterable[Choice]) -> str | None:
    reasons = [choice.escalation_reason for choice in choices if choice.escalation_reason]
    return next((reason for reason in reasons if reason != "none"), "none") if reasons else None


def _course(choice: Choice) -> dict[str, Any]:
    decision, end, continued = choice.decision, choice.completed, choice.continued
    return {
        "answered_by": choice.written_by[0] if choice.written_by else None,
        "model": decision.model if decision else None,
        "continued_by": continued.model if continued and not continued.fallback else None,
        "escalation_reason": choice.escalation_reason,
        "fallback": choice.fallback,
        "confidence": _confidence(choice.decisions),
        "completion_tokens": end.completion_tokens if end else None,
        "cost_atomic": end.cost if end else 0,
        "cost_transaction": end.transaction if end else None,
    }
