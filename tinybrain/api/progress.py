"""What is known of an answer while it is made: its choices, timings, and the record at its end."""

import time
from collections.abc import Iterable
from typing import Any

from tinybrain.api.choices import Choice, Part
from tinybrain.payments.records import MIXED, AnswerRecord
from tinybrain.routing.events import Completed, Decision
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
        was, the least confidence, and the course of each.
        """
        decisions = [choice.decision for choice in self.choices if choice.decision]
        least = _least_sure(decisions)
        ends = self._completed
        ended = len(ends) == len(self.choices)
        return AnswerRecord(
            outcome=outcome,
            error=None if error is None else error[:300],
            answered_by=_common(decision.answered_by for decision in decisions),
            model=_common(decision.model for decision in decisions),
            reason=_reason(decisions),
            rule=decisions[0].rule if decisions else None,
            signals=least.signals.recorded() if least and least.signals else None,
            fallback=any(decision.fallback for decision in decisions),
            perplexity=next((c.prefilled.perplexity for c in self.choices if c.prefilled), None),
            confidence=least.confidence if least else None,
            prompt_tokens=ends[0].prompt_tokens if ended else None,
            completion_tokens=sum(end.completion_tokens for end in ends) if ended else None,
            ttft_ms=self._ttft_ms,
            total_ms=self._elapsed_ms(),
            choices=[_course(choice) for choice in self.choices] if len(self.choices) > 1 else None,
        )

    @property
    def _completed(self) -> list[Completed]:
        return [choice.completed for choice in self.choices if choice.completed]

    def _elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)


def _least_sure(decisions: Iterable[Decision]) -> Decision | None:
    judged = [decision for decision in decisions if decision.confidence is not None]
    return min(judged, key=lambda decision: decision.confidence or 0, default=None)


def _common(values: Iterable[str]) -> str | None:
    different = set(values)
    if len(different) > 1:
        return MIXED
    return next(iter(different), None)


def _reason(decisions: Iterable[Decision]) -> str | None:
    reasons = [decision.reason for decision in decisions]
    return next((reason for reason in reasons if reason != "none"), "none") if reasons else None


def _course(choice: Choice) -> dict[str, Any]:
    decision, end = choice.decision, choice.completed
    return {
        "answered_by": decision.answered_by if decision else None,
        "model": decision.model if decision else None,
        "escalation_reason": decision.reason if decision else None,
        "fallback": decision.fallback if decision else False,
        "confidence": decision.confidence if decision else None,
        "completion_tokens": end.completion_tokens if end else None,
        "cost_atomic": end.cost if end else 0,
        "cost_transaction": end.transaction if end else None,
    }
