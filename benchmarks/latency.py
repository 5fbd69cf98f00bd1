"""Latencies of several ways to the same answer, compared within one run, as a table.

Knows neither HTTP nor processes. All times are milliseconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tinybrain.payments.receipts import percentile

Row = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, timed from the moment its (paid) request was sent.

    `first_token` is None where the answer came whole. What an x402 caller waits for besides:
    `challenge`, the request that is answered with 402, and `signing`; `settled` is the time from
    the last byte until the receipt names the transaction.
    """

    round: int
    total: float
    first_token: float | None = None
    challenge: float | None = None
    signing: float | None = None
    settled: float | None = None

    @property
    def felt(self) -> float:
        """What the caller waits for: the first token of a stream, or the whole answer."""
        return self.total if self.first_token is None else self.first_token


def overhead(samples: Sequence[Sample], direct: Sequence[Sample]) -> Row:
    """A table's row for one way, against the direct way of the same rounds.

    `added` and `times` compare the medians of each round, so a machine that is busy in one round
    slows both sides; shown are their median and the middle half of the rounds.
    """
    pairs = list(zip(_medians_of_rounds(samples), _medians_of_rounds(direct), strict=True))
    added = sorted(ours - theirs for ours, theirs in pairs)
    first_tokens = [sample.first_token for sample in samples if sample.first_token is not None]
    return {
        "n": len(samples),
        **(_p50_p95("first token", first_tokens) if first_tokens else {}),
        **_p50_p95("total", [sample.total for sample in samples]),
        "added": round(percentile(added, 0.5), 1),
        "added, middle half": f"{percentile(added, 0.25):.1f} to {percentile(added, 0.75):.1f}",
        "times direct": round(median(ours / theirs for ours, theirs in pairs), 1),
    }


def payment_steps(samples: Sequence[Sample]) -> Row:
    """A table's row for what paying adds besides the paid request itself."""
    whole_way = [
        sample.challenge + sample.signing + sample.felt
        for sample in samples
        if sample.challenge is not None and sample.signing is not None
    ]
    return {
        **_p50_p95("402", [s.challenge for s in samples if s.challenge is not None]),
        **_p50_p95("signing", [s.signing for s in samples if s.signing is not None]),
        **_p50_p95("with the answer", whole_way),
        **_p50_p95("settled after", [s.settled for s in samples if s.settled is not None]),
    }


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; the first one names the columns."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(v) for v in r.values()] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _medians_of_rounds(samples: Iterable[Sample]) -> list[float]:
    rounds: dict[int, list[float]] = {}
    for sample in samples:
        rounds.setdefault(sample.round, []).append(sample.felt)
    return [median(rounds[number]) for number in sorted(rounds)]


def _p50_p95(name: str, values: Iterable[float]) -> Row:
    ordered = sorted(values)
    return {
        f"{name} P{percent}": round(percentile(ordered, percent / 100), 1) if ordered else "-"
        for percent in (50, 95)
    }
