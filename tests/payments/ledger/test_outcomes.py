"""Judged answers and their labels are kept per checkpoint, and what audits cost is known."""

import asyncio
import contextlib
import sqlite3

import pytest

from tinybrain.errors import LedgerUnavailable
from tinybrain.payments.database import Database
from tinybrain.payments.ledger.outcomes import OutcomeBook
from tinybrain.payments.records import AnswerRecord, Charge, Judged, Label, Spending

SIGNALS = {"min_logprob": -0.5, "perplexity": None}
NOTHING = Spending(total=0, audits=0, doubted=0, others=0, doubts=0, judged=0, seconds=0.0)


@pytest.fixture
def book(database, clock):
    return OutcomeBook(database, clock=clock)


def label(checkpoint="here", **changes):
    values = {
        "checkpoint": checkpoint,
        "source": "audit",
        "signals": SIGNALS,
        "is_declined": False,
        "is_right": True,
        "probability": 0.03,
    }
    return Label(**(values | changes))


@pytest.fixture
def answered(ledger, clock, new_answer):
    """Records an answer a second after the last."""

    async def record(number, **values):
        clock.now += 1
        await ledger.begin(new_answer(number), None)
        record = AnswerRecord("completed", **values)
        await ledger.finish(new_answer(number).id, record, charge=Charge.NO)

    return record


async def test_labels_come_back_as_they_were_the_newest_first(book):
    labels = [label(), label(source="escalated", is_right=False, is_declined=True)]
    for each in [*labels, label("elsewhere")]:
        await book.record(each)
    assert await book.labels("here", limit=9) == labels[::-1]
    assert await book.labels("here", limit=1) == labels[1:]


async def test_judged_are_the_answers_of_a_checkpoints_gate(book, answered):
    await answered(1, reason="none", signals=SIGNALS, checkpoint="here")
    await answered(2, reason="uncertainty", signals=SIGNALS, checkpoint="here")
    await answered(3, reason="keyword")
    await answered(4, reason="none", signals=SIGNALS, checkpoint="elsewhere")
    await answered(5, reason="none", signals=SIGNALS, checkpoint="here", choices=[{}, {}])
    found = [Judged(SIGNALS, "uncertainty"), Judged(SIGNALS, "none")]
    assert await book.judged("here", limit=9) == found
    assert await book.judged("here", limit=1) == found[:1]


async def test_a_continued_answer_was_judged_and_of_several_choices_none_was(book, answered):
    continued = {"reason": "later_doubt", "signals": SIGNALS, "checkpoint": "here"}
    await answered(1, **continued, choices=[{"continued_by": "larger"}])
    await answered(2, **continued, choices=[{"continued_by": "larger"}, {}])
    assert await book.judged("here", limit=9) == [Judged(SIGNALS, "later_doubt")]


async def test_audits_are_told_from_what_is_sold_on_for_a_day(book, ledger, clock, new_purchase):
    for answer_id in ("ans_1", "aud_2", "aud_3", "audits"):
        bought = await ledger.reserve(new_purchase(1_000, answer_id))
    await ledger.release_purchase(bought, note="refused")
    spending = await book.spending("here")
    assert (spending.total, spending.audits, spending.doubted) == (3_000, 2_000, 0)
    clock.now += 86_400
    assert await book.spending("here") == NOTHING


async def test_what_a_checkpoints_gate_doubted_is_told_from_what_else_was_bought(
    book, ledger, clock, answered, new_answer, new_purchase
):
    judged = {"signals": SIGNALS, "checkpoint": "here"}
    asked = [
        judged | {"reason": "uncertainty"},
        judged | {"reason": "uncertainty"},  # nothing bought: the budget refused it
        judged | {"reason": "declined"},
        judged | {"reason": "none"},
        {"reason": "keyword"},
        judged | {"reason": "uncertainty", "checkpoint": "elsewhere"},
    ]
    for number, values in enumerate(asked, start=1):
        await answered(number, **values)
        if number not in (2, 4):
            await ledger.reserve(new_purchase(1_000 * number, new_answer(number).id))
    await ledger.reserve(new_purchase(500, new_answer(1).id))  # for its second choice
    clock.now += 10
    assert await book.spending("here") == Spending(
        total=15_500, audits=0, doubted=1_500, others=14_000, doubts=1, judged=4, seconds=15.0
    )


async def test_what_was_bought_before_a_gate_judged_anything_says_nothing_of_it(
    book, ledger, clock, answered, new_purchase
):
    await ledger.reserve(new_purchase(9_000, ""))
    await answered(1, reason="none", signals=SIGNALS, checkpoint="here")
    clock.now += 5
    spending = await book.spending("here")
    assert (spending.total, spending.others, spending.seconds) == (9_000, 0, 5.0)


async def test_a_gate_that_rested_for_a_day_is_not_young(book, clock, answered):
    for number in (1, 2):
        await answered(number, reason="none", signals=SIGNALS, checkpoint="here")
        clock.now += 100_000
    clock.now -= 99_990
    spending = await book.spending("here")
    assert (spending.judged, spending.seconds) == (1, 86_400.0)


async def test_replicas_write_side_by_side(database_url, clock):
    databases = [await Database.open(database_url) for _ in range(2)]
    books = [OutcomeBook(each, clock=clock) for each in databases]
    await asyncio.gather(*(books[n % 2].record(label()) for n in range(20)))
    assert len(await books[0].labels("here", limit=99)) == 20
    for each in databases:
        await each.close()


async def test_a_locked_database_is_said_to_be_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr("tinybrain.payments.sqlite.BUSY_TIMEOUT_S", 0.1)
    path = tmp_path / "ledger.db"
    database = await Database.open(f"sqlite+aiosqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable):
            await OutcomeBook(database).record(label())
        assert await OutcomeBook(database).labels("here", limit=9) == []
    await database.close()
