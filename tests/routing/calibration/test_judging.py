"""A larger model's verdicts: one word each, none bought twice, never over the budget."""

import pytest

from tinybrain.chat import Finished, Text, Thought
from tinybrain.errors import BudgetExceeded, ConfigError, UpstreamError
from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.judging import (
    Judge,
    VerdictFile,
    judging_in_words,
    judging_order,
    label,
    needs_judging,
    reached,
)
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.signals import Signals

COST, MOST = 1_000, 5_000


class Larger:
    """Says `replies` in turn, the last one for ever; an exception among them is raised."""

    name = "larger"

    def __init__(self, *replies, cost=COST):
        self.replies = list(replies)
        self.cost = cost
        self.prompts = []

    async def generate(self, messages, sampling, *, answer_id):
        self.prompts.append(messages[0].content)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        yield Thought("WRONG, or RIGHT?")
        yield Text(reply[:2])
        yield Finished("stop", 9, 1, reply[2:], cost=self.cost)


def draft(text="Why?", answer="So.", accepted=None):
    return Draft(Question(text=text, accepted=accepted), answer, Signals.of([]))


def drafts(n):
    return [draft(f"Why {i}?") for i in range(n)]


@pytest.fixture
def judge(tmp_path):
    async def judged(larger, asked, budget=1_000_000):
        file = VerdictFile(tmp_path)
        return await Judge(larger, budget=budget, most=MOST, file=file).judge_all(asked)

    return judged


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("RIGHT", True),
        (" WRONG\n", False),
        ("right", None),
        ("It is RIGHT", None),
        ("RIGHT or WRONG", None),
        ("", None),
    ],
)
async def test_a_verdict_is_one_word_and_all_else_is_discarded(judge, reply, verdict):
    larger = Larger(reply)
    judging = await judge(larger, [draft()])
    assert judging.verdicts == {("Why?", "So."): verdict}
    assert (judging.discarded, judging.spent) == (verdict is None, COST)
    assert "<question>\nWhy?\n</question>" in larger.prompts[0]


async def test_it_stops_before_the_budget_could_be_exceeded(judge):
    judging = await judge(Larger("RIGHT"), drafts(50), budget=30_000)
    assert judging.spent == 26_000  # one more could have cost 5,000
    assert len(judging.verdicts) == 26


async def test_a_call_that_does_not_tell_its_cost_counts_as_the_dearest(judge):
    judging = await judge(Larger("RIGHT", cost=0), drafts(50), budget=30_000)
    assert (judging.judged, judging.untold, judging.spent) == (6, 6, 30_000)


def half_declined(n):
    return [draft(f"Why {i}?", answer="No idea." if i % 2 else "So.") for i in range(n)]


async def test_where_the_budget_ends_the_sample_ends_for_what_was_declined_as_well(judge):
    order = judging_order([*half_declined(100), draft("Who?", accepted=("I",))], seed=1)
    waiting = [one for one in order if needs_judging(one, declines="No")]
    judging = await judge(Larger("RIGHT"), waiting, budget=20_000)
    sample = reached(order, judging, declines="No")
    assert len(judging.verdicts) == 16
    assert sample == order[: order.index(waiting[16])]
    assert 8 <= sum(one.is_declined("No") for one in sample) <= 24


async def test_a_call_that_failed_or_said_neither_does_not_end_the_sample(judge):
    order = drafts(5)
    judging = await judge(Larger(UpstreamError("It is down."), "maybe", "RIGHT"), order)
    assert reached(order, judging, declines=None) == order


def test_the_order_is_the_seeds_and_holds_what_nobody_can_label():
    asked = [*half_declined(50), draft("Who?", accepted=("I",))]
    order = judging_order(asked, seed=1)
    assert order == judging_order(asked, seed=1) != judging_order(asked, seed=2)
    assert sorted(one.question.text for one in order) == sorted(
        one.question.text for one in half_declined(50)
    )


async def test_a_failure_is_counted_and_judged_again_by_the_next_call(judge):
    asked = drafts(3)
    judging = await judge(Larger(UpstreamError("It is down."), "RIGHT"), asked)
    assert (judging.failed, len(judging.verdicts), judging.spent) == (1, 2, 2 * COST + MOST)
    words = judging_in_words(judging, most=MOST)
    assert words.startswith("2 answers were judged for $0.007")
    assert "1 calls failed. It is down." in words
    again = await judge(Larger("WRONG"), asked)
    assert (again.judged, len(again.verdicts)) == (1, 3)


async def test_a_spending_cap_ends_it(judge):
    larger = Larger("RIGHT", BudgetExceeded("The day is spent."))
    judging = await judge(larger, drafts(50))
    assert len(larger.prompts) <= 5  # those under way
    assert (judging.judged, judging.failed, judging.spent) == (1, 0, COST)
    assert "The day is spent." in judging_in_words(judging, most=MOST)


async def test_no_verdict_is_bought_twice(judge):
    await judge(Larger("RIGHT", "maybe"), drafts(2))
    again = await judge(Larger("WRONG"), drafts(2))
    assert (again.judged, sorted(map(str, again.verdicts.values()))) == (0, ["None", "True"])


def test_a_file_that_holds_something_else_is_named(tmp_path):
    (tmp_path / "verdicts.jsonl").write_text("[]\n")
    with pytest.raises(ConfigError, match=r"verdicts\.jsonl holds a line that is no verdict"):
        VerdictFile(tmp_path).read()


def test_accepted_answers_need_no_judge_and_nor_does_what_was_declined():
    assert needs_judging(draft(), declines="So what")
    assert not needs_judging(draft(), declines="So")
    assert not needs_judging(draft(accepted=()), declines=None)


@pytest.mark.parametrize(
    ("one", "verdicts", "right"),
    [
        (draft(accepted=("so",)), {}, True),
        (draft(accepted=()), {("Why?", "So."): True}, False),
        (draft(), {("Why?", "So."): True}, True),
        (draft(), {("Why?", "So."): False}, False),
    ],
)
def test_an_outcome_is_labelled_by_what_is_accepted_else_by_the_verdict(one, verdicts, right):
    assert label(one, verdicts, declines=None).right is right


def test_without_a_verdict_there_is_no_outcome_but_a_declined_answer_is_one():
    assert label(draft(), {}, declines=None) is None
    assert label(draft(), {("Why?", "So."): None}, declines=None) is None
    assert label(draft(), {}, declines="So").declined
