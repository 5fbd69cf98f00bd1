"""What TinyBrain counts and times. Knows no metrics library: a `MeterFactory` is handed in.

Deployments hand in Ray Serve's, so that every replica's numbers reach one scrape; libraries and
tests hand in Prometheus' own or none.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

LATENCY_BUCKETS_S = [
    0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 40, 50, 60, 90, 120,
]  # fmt: skip
"""At most a factor of 1.5 apart, so P50 and P95 mean something between 10 ms and 60 s."""

BATCH_BUCKETS = [1, 2, 5, 10, 20, 50, 100, 200]


class Counter(Protocol):
    """A number that only rises."""

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        """Add `value`."""


class Histogram(Protocol):
    """A distribution."""

    def observe(self, value: float, tags: Mapping[str, str]) -> None:
        """Add one observation."""


class Gauge(Protocol):
    """A number as it is now."""

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        """Replace the value."""


class MeterFactory(Protocol):
    """Makes the meters of one metrics library."""

    def counter(self, name: str, description: str, labels: Sequence[str]) -> Counter:
        """Make a counter; the exporter appends `_total`."""
        ...

    def histogram(
        self, name: str, description: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        """Make a histogram."""
        ...

    def gauge(self, name: str, description: str, labels: Sequence[str]) -> Gauge:
        """Make a gauge."""
        ...


class Metrics:
    """Every metric of the service, one method each."""

    def __init__(self, meters: MeterFactory) -> None:
        self._requests = meters.counter("tinybrain_requests", "HTTP requests", ["route", "status"])
        self._answers = meters.counter(
            "tinybrain_answers", "Answers by who wrote them", ["model", "mode", "outcome"]
        )
        self._first_token = meters.histogram(
            "tinybrain_time_to_first_token_seconds",
            "From the request's arrival to the first token sent",
            ["model", "mode"],
            LATENCY_BUCKETS_S,
        )
        self._total = meters.histogram(
            "tinybrain_answer_seconds",
            "From the request's arrival to the last token sent",
            ["model", "mode"],
            LATENCY_BUCKETS_S,
        )
        self._escalations = meters.counter(
            "tinybrain_escalations", "Answers that the larger model wrote", ["reason"]
        )
        self._claims = meters.counter("tinybrain_claims", "Payments presented", ["outcome"])
        self._settlements = meters.counter(
            "tinybrain_settlements", "Attempts to settle a payment or refund", ["outcome"]
        )
        self._batches = meters.histogram(
            "tinybrain_settlement_batch_size", "Payments settled together", [], BATCH_BUCKETS
        )
        self._settled_after = meters.histogram(
            "tinybrain_settlement_seconds",
            "From when a payment could be settled until it was",
            [],
            LATENCY_BUCKETS_S,
        )
        self._facilitator_failures = meters.counter(
            "tinybrain_facilitator_failures", "Facilitators that gave no usable answer", ["name"]
        )
        self._debts = meters.counter(
            "tinybrain_debts_usdc_atomic", "Atomic USDC of payments that became debts", []
        )
        self._refunds = meters.counter(
            "tinybrain_refunds_usdc_atomic", "Atomic USDC given back to callers", []
        )
        self._revenue = meters.counter(
            "tinybrain_revenue_usdc_atomic", "Atomic USDC collected from callers", []
        )
        self._spend = meters.counter(
            "tinybrain_spend_usdc_atomic", "Atomic USDC paid to upstreams", ["provider"]
        )
        self._audits = meters.counter(
            "tinybrain_audits", "Answers chosen to be labelled", ["source", "outcome"]
        )
        self._audit_spend = meters.gauge(
            "tinybrain_audit_spend_usdc_atomic", "Atomic USDC of audits in the last 24 hours", []
        )
        self._labels = meters.gauge(
            "tinybrain_routing_labels", "Labels in the window", ["source", "verdict"]
        )
        self._escalation_rate = meters.gauge(
            "tinybrain_routing_escalation_rate", "Share of the judged answers", []
        )
        self._target = meters.gauge("tinybrain_routing_target", "What the gate follows", ["kind"])
        self._threshold = meters.gauge(
            "tinybrain_routing_threshold", "P(wrong) up to which answers are kept", []
        )
        self._paced = meters.gauge(
            "tinybrain_routing_paced", "1 while the day's budget sets the threshold, else 0", []
        )
        self._drift = meters.gauge(
            "tinybrain_routing_drift", "Population stability index of P(wrong)", []
        )

    def request(self, route: str, status: int) -> None:
        """One HTTP request was answered."""
        self._requests.inc(1, {"route": route, "status": str(status)})

    def answer(
        self, *, model: str, mode: str, outcome: str, ttft_s: float | None, total_s: float
    ) -> None:
        """One answer ended: completed, aborted or failed."""
        self._answers.inc(1, {"model": model, "mode": mode, "outcome": outcome})
        if ttft_s is not None:
            self._first_token.observe(ttft_s, {"model": model, "mode": mode})
        if outcome == "completed":
            self._total.observe(total_s, {"model": model, "mode": mode})

    def escalation(self, reason: str) -> None:
        """The larger model wrote an answer; `reason` is why it was asked, or none."""
        self._escalations.inc(1, {"reason": reason})

    def claim(self, outcome: str) -> None:
        """One payment was presented: claimed, duplicate, or the code it was refused with."""
        self._claims.inc(1, {"outcome": outcome})

    def settlement(self, outcome: str) -> None:
        """An attempt ended: settled, pending, retry, debt, released; or a transfer was undone."""
        self._settlements.inc(1, {"outcome": outcome})

    def batch(self, size: int) -> None:
        """So many payments go to the facilitator together."""
        self._batches.observe(size, {})

    def settled_after(self, seconds: float) -> None:
        """A payment was settled so long after it could be."""
        self._settled_after.observe(seconds, {})

    def facilitator_failure(self, name: str) -> None:
        """A facilitator gave no usable answer: "own", "cdp", or host and port."""
        self._facilitator_failures.inc(1, {"name": name})

    def debt(self, amount: int) -> None:
        """What was delivered cannot be collected."""
        self._debts.inc(amount, {})

    def refund(self, amount: int) -> None:
        """Money went back to a caller."""
        self._refunds.inc(amount, {})

    def revenue(self, amount: int) -> None:
        """Money of a caller arrived."""
        self._revenue.inc(amount, {})

    def spend(self, amount: int, provider: str) -> None:
        """Money went to an upstream."""
        self._spend.inc(amount, {"provider": provider})

    def audit(self, source: str, outcome: str) -> None:
        """An answer was chosen to be labelled: right, wrong, undecided, failed, budget, dropped."""
        self._audits.inc(1, {"source": source, "outcome": outcome})

    def audit_spend(self, amount: int) -> None:
        """Audits cost so much in the last 24 hours."""
        self._audit_spend.set(amount, {})

    def labels(self, source: str, verdict: str, count: int) -> None:
        """So many labels of the window say right or wrong."""
        self._labels.set(count, {"source": source, "verdict": verdict})

    def gate(self, *, threshold: float, target: float, kind: str, is_paced: bool) -> None:
        """What the gate does now, and what it follows: an escalation_rate or a local_error.

        `is_paced` where the day's budget raised the threshold above that.
        """
        self._threshold.set(threshold, {})
        self._paced.set(int(is_paced), {})
        self._target.set(target, {"kind": kind})

    def judged(self, *, escalated: float, drift: float) -> None:
        """Of the latest judged answers."""
        self._escalation_rate.set(escalated, {})
        self._drift.set(drift, {})


class Levels:
    """What is measured as it is now, by the one process that settles."""

    def __init__(self, meters: MeterFactory) -> None:
        self._gas = meters.gauge(
            "tinybrain_gas_settlements_left", "Single settlements that the gas wallet can pay", []
        )
        self._oldest = meters.gauge(
            "tinybrain_oldest_unsettled_seconds",
            "Age of the oldest payment or refund that waits for its settlement; 0: none waits",
            [],
        )

    def gas_left(self, settlements: int) -> None:
        """The gas wallet pays for so many single settlements."""
        self._gas.set(settlements, {})

    def oldest_unsettled(self, seconds: float) -> None:
        """The oldest payment that waits was claimed so long ago."""
        self._oldest.set(seconds, {})
