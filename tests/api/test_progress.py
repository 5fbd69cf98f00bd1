"""What the ledger is told of an answer with several choices."""

import time

import pytest

from tinybrain.api.choices import Part
from tinybrain.api.progress import Progress
from tinybrain.chat import Prefilled
from tinybrain.routing.events import Completed, Decision, Delta
from tinybrain.usdc import Usdc

LOCAL = Decision(answered_by="tinychat", model="tinychat", confidence=0.9, perplexity=3.0)
BOUGHT = Decision(answered_by="upstream", model="larger", reason="uncertainty", confidence=0.2)


@pytest.fixture
def progress():
    """TinyChat knew the first choice and was unsure of the second, which was bought."""
    progress = Progress(time.perf_counter(), choices=2)
    for event in (Prefilled(3.0, 5, user_perplexity=4.0), LOCAL, Delta("a")):
        progress.note(Part(0, event))
    for event in (Prefilled(3.0, 5), BOUGHT, Delta("b")):
        progress.note(Part(1, event))
    progress.note(Part(1, Completed("stop", 9, 7, Usdc(1_000), "0x1")))
    return progress


def test_choices_of_two_models_are_told_as_mixed_with_the_course_of_each(progress):
    progress.note(Part(0, Completed("stop", 5, 3)))
    record = progress.record("completed")
    assert (record.answered_by, record.model, record.reason) == ("mixed", "mixed", "uncertainty")
    assert (record.perplexity, record.confidence) == (3.0, 0.2)
    assert (record.prompt_tokens, record.completion_tokens) == (5, 10)
    assert [choice["answered_by"] for choice in record.choices] == ["tinychat", "upstream"]
    assert [choice["cost_atomic"] for choice in record.choices] == [0, 1_000]
    assert (progress.cost, progress.transaction, progress.user_perplexity) == (1_000, "0x1", 4.0)


def test_tokens_are_not_counted_before_every_choice_has_ended(progress):
    record = progress.record("aborted", "the caller left")
    assert (record.prompt_tokens, record.completion_tokens) == (None, None)


def test_two_purchases_have_no_transaction_in_common(progress):
    progress.note(Part(0, Completed("stop", 5, 3, Usdc(1_000), "0x2")))
    assert (progress.cost, progress.transaction) == (2_000, None)


def test_one_choice_is_told_as_it_is():
    progress = Progress(time.perf_counter(), choices=1)
    progress.note(Part(0, LOCAL))
    record = progress.record("aborted")
    assert (record.answered_by, record.reason, record.choices) == ("tinychat", "none", None)


def test_of_an_answer_that_nobody_began_nobody_is_told():
    record = Progress(time.perf_counter(), choices=2).record("failed", "It broke.")
    assert (record.answered_by, record.model, record.reason) == (None, None, None)
