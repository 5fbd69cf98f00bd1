"""Receipts and statistics."""

import pytest

from tinybrain.payments.receipts import percentile
from tinybrain.payments.records import AnswerRecord, Charge


async def test_a_receipt_tells_who_paid_and_what_it_cost(ledger, receipts, new_answer, new_payment):
    await ledger.begin(new_answer(1), new_payment())
    await ledger.finish(
        new_answer(1).id, AnswerRecord(outcome="completed", reason="none"), charge=Charge.YES
    )
    receipt = await receipts.receipt(new_answer(1).id)
    assert receipt["payment"]["state"] == "served"
    assert receipt["payment"]["amount"] == 10_000
    assert "payload" not in receipt["payment"]


async def test_there_is_no_receipt_for_an_unknown_answer(receipts):
    assert await receipts.receipt("ans_unknown") is None


async def test_statistics_of_nothing_are_empty(receipts):
    statistics = await receipts.statistics(since_ms=0)
    assert statistics["answers"] == {}
    assert statistics["latency_ms"] == {}


async def test_statistics_tell_percentiles_by_who_answered(
    ledger, receipts, new_answer, new_payment
):
    for number in range(1, 101):
        answer = new_answer(number)
        await ledger.begin(answer, new_payment(number, payer=f"0x{number:040x}"))
        record = AnswerRecord(
            outcome="completed",
            answered_by="tinychat",
            reason="none",
            ttft_ms=float(number),
            total_ms=2.0 * number,
        )
        await ledger.finish(answer.id, record, charge=Charge.YES)
    statistics = await receipts.statistics(since_ms=0)
    latencies = statistics["latency_ms"]["tinychat/auto"]
    assert latencies["first_token"] == {"average": 50.5, "p50": 50.5, "p95": 95.05}
    assert latencies["total"]["p50"] == 101.0
    assert statistics["payments"] == {"served": {"count": 100, "amount": 1_000_000}}


@pytest.mark.parametrize(
    ("values", "quantile", "expected"),
    [([7.0], 0.95, 7.0), ([0.0, 10.0], 0.5, 5.0), ([0.0, 10.0], 1.0, 10.0)],
)
def test_percentiles_lie_between_neighbours(values, quantile, expected):
    assert percentile(values, quantile) == expected
