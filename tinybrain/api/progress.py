"""What is known of an answer while it is made: its events, timings, and the record at its end."""

import time

from tinybrain.chat import Prefilled
from tinybrain.payments.records import AnswerRecord
from tinybrain.routing.events import AnswerEvent, Completed, Decision, Delta, ReasoningDelta


class Progress:
    """Notes the events of one answer; `started` is perf_counter when its request arrived."""

    def __init__(self, started: float) -> None:
        self.events: list[AnswerEvent] = []
        self.prefilled: Prefilled | None = None
        self.completed: Completed | None = None
        self._started = started
        self._ttft_ms: float | None = None
        self._decision: Decision | None = None

    def note(self, event: AnswerEvent) -> None:
        """Take in the next event."""
        self.events.append(event)
        match event:
            case Prefilled():
                self.prefilled = event
            case Decision():
                self._decision = event
            case Completed():
                self.completed = event
            case Delta() | ReasoningDelta():
                if self._ttft_ms is None:
                    self._ttft_ms = self._elapsed_ms()

    def record(self, outcome: str, error: str | None = None) -> AnswerRecord:
        """What the ledger is told at the end."""
        decision, completed = self._decision, self.completed
        return AnswerRecord(
            outcome=outcome,
            error=None if error is None else error[:300],
            answered_by=decision.answered_by if decision else None,
            model=decision.model if decision else None,
            reason=decision.reason if decision else None,
            rule=decision.rule if decision else None,
            signals=decision.signals.recorded() if decision and decision.signals else None,
            fallback=decision.fallback if decision else False,
            perplexity=self.prefilled.perplexity if self.prefilled else None,
            confidence=decision.confidence if decision else None,
            prompt_tokens=completed.prompt_tokens if completed else None,
            completion_tokens=completed.completion_tokens if completed else None,
            ttft_ms=self._ttft_ms,
            total_ms=self._elapsed_ms(),
        )

    def _elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 3)
