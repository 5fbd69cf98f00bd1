"""Receipts and statistics."""

import pytest

from tinybrain.payments.receipts import percentile
from tinybrain.payments.records import (
    AnswerRecord,
    Charge,
    Collected,
    NewTab,
    Purpose,
    TabCharge,
)

COMPLETED = AnswerRecord(outcome="completed", answered_by="tinychat", reason="none")
FAILED = AnswerRecord(outcome="failed", error="it broke")


async def served(ledger, answer, payment):
    await ledger.begin(answer, payment)
    await ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
    return (await ledger.payment_of(answer.id)).id


async def refunded(ledger, answer, payment):
    """A payment made upfront for an answer that failed, given back."""
    await ledger.begin(answer, payment)
    payment_id = (await ledger.payment_of(answer.id)).id
    await ledger.take([payment_id])
    await ledger.settled([Collected(payment_id, "0x1", 1)])
    await ledger.finish(answer.id, FAILED, charge=Charge.NO)
    (refund,) = await ledger.due_payments()
    await ledger.take([refund.id])
    await ledger.settled([Collected(refund.id, "0x2", 2)])


async def test_a_receipt_tells_who_paid_and_what_it_cost(ledger, receipts, new_answer, new_payment):
    await ledger.begin(new_answer(1), new_payment())
    await ledger.finish(
        new_answer(1).id, AnswerRecord(outcome="completed", reason="none"), charge=Charge.YES
    )
    receipt = await receipts.receipt(new_answer(1).id)
    assert receipt["payment"]["state"] == "served"
    assert receipt["payment"]["amount"] == 10_000
    assert receipt["payment"]["flow"] == "authorization"
    assert receipt["payment"]["refund"] is None
    assert not {"payload", "nonce"} & receipt["payment"].keys()
    assert (receipt["charged"], receipt["cost"], receipt["profit"]) == (10_000, 0, 10_000)
    assert receipt["tab"] is None


async def test_a_receipt_does_not_tell_whose_gate_judged(ledger, receipts, new_answer, new_payment):
    await ledger.begin(new_answer(1), new_payment())
    record = AnswerRecord(outcome="completed", checkpoint="m@0123456789ab")
    await ledger.finish(new_answer(1).id, record, charge=Charge.YES)
    assert "checkpoint" not in await receipts.receipt(new_answer(1).id)


async def test_profit_is_what_was_charged_without_what_was_spent(
    ledger, receipts, new_answer, new_payment, new_purchase
):
    answer = new_answer(1)
    await ledger.begin(answer, new_payment())
    bought = await ledger.reserve(new_purchase(1_000, answer.id))
    await ledger.paid(bought, transaction="0x1")
    refused = await ledger.reserve(new_purchase(900, answer.id))
    await ledger.release_purchase(refused, note="refused")
    assert (await receipts.receipt(answer.id))["profit"] == -1_000
    await ledger.finish(answer.id, COMPLETED, charge=Charge.YES)
    receipt = await receipts.receipt(answer.id)
    assert (receipt["charged"], receipt["cost"], receipt["profit"]) == (10_000, 1_000, 9_000)
    assert [purchase["state"] for purchase in receipt["purchases"]] == ["paid", "released"]


async def test_an_answer_whose_debt_was_withdrawn_was_charged_nothing(
    ledger, receipts, new_answer, new_payment
):
    payment_id = await served(ledger, new_answer(1), new_payment())
    await ledger.take([payment_id])
    await ledger.uncollectable(payment_id, "cancelled")
    assert (await receipts.receipt(new_answer(1).id))["charged"] == 10_000
    await ledger.withheld(payment_id)
    assert (await receipts.receipt(new_answer(1).id))["charged"] == 0
    assert (await receipts.statistics(since_ms=0))["revenue"] == 0


async def test_the_receipt_of_a_failed_upfront_answer_tells_its_refund(
    ledger, receipts, new_answer, new_payment
):
    answer = new_answer(1)
    await refunded(ledger, answer, new_payment(flow="upfront"))
    receipt = await receipts.receipt(answer.id)
    assert receipt["payment"]["state"] == "refunded"
    assert receipt["payment"]["refund"] == {
        "state": "settled",
        "amount": 10_000,
        "transaction": "0x2",
    }
    assert (receipt["charged"], receipt["profit"]) == (0, 0)


async def test_the_receipt_of_an_answer_on_a_tab_names_the_tab(
    ledger, receipts, new_answer, new_payment
):
    await ledger.open_tab(NewTab("tab_1", "f" * 64, "bar"), new_payment(purpose=Purpose.TAB))
    await ledger.begin(new_answer(1, credential="tab"), tab=TabCharge("f" * 64, "0" * 64))
    await ledger.finish(new_answer(1).id, COMPLETED, charge=Charge.YES)
    receipt = await receipts.receipt(new_answer(1).id)
    assert (receipt["tab"], receipt["payment"], receipt["charged"]) == ("tab_1", None, 10_000)
    assert "f" * 64 not in str(receipt)


async def test_statistics_tell_what_was_earned_spent_given_back_and_is_owed(
    ledger, receipts, new_answer, new_payment, new_purchase
):
    await refunded(ledger, new_answer(1), new_payment(1, flow="upfront"))
    debt = await served(ledger, new_answer(2), new_payment(2))
    bought = await ledger.reserve(new_purchase(1_000, new_answer(2).id))
    await ledger.paid(bought, transaction="0x3")
    await ledger.take([debt])
    await ledger.uncollectable(debt, "cancelled")
    told = await receipts.statistics(since_ms=0)
    assert (told["revenue"], told["cost"], told["profit"]) == (10_000, 1_000, 9_000)
    assert told["refunds"] == {"settled": {"count": 1, "amount": 10_000}}
    assert told["payments"] == {
        "refunded": {"count": 1, "amount": 10_000},
        "debt": {"count": 1, "amount": 10_000},
    }
    assert told["debts"] == {"count": 1, "amount": 10_000}


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
