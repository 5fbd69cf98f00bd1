"""What the ledger is told of an answer with several choices."""

import time
from dataclasses import replace

import pytest

from tinybrain.api.choices import Part
from tinybrain.api.progress import Progress
from tinybrain.chat import Prefilled
from tinybrain.routing.events import Completed, Continued, Decision, Delta
from tinybrain.usdc import Usdc

LOCAL = Decision(answered_by="tinychat", model="tinychat", confidence=0.9, perplexity=3.0)
BOUGHT = Decision(answered_by="upstream", model="larger", reason="uncertainty", confidence=0.2)

GOES_ON = Continued(answered_by="upstream", model="larger", reason="later_doubt", confidence=0.2)


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


@pytest.fixture
def began():
    """TinyChat began, and the larger model was asked to go on."""
    progress = Progress(time.perf_counter(), choices=1)
    for event in (Prefilled(3.0, 5), LOCAL, Delta("a")):
        progress.note(Part(0, event))
    return progress


def test_an_answer_of_two_models_is_told_with_its_course(began):
    began.note(Part(0, GOES_ON))
    began.note(Part(0, Completed("stop", 5, 7, Usdc(1_000), "0x1")))
    record = began.record("completed")
    assert (record.answered_by, record.model, record.reason) == ("mixed", "mixed", "later_doubt")
    assert (record.confidence, record.fallback) == (0.2, False)
    (course,) = record.choices
    assert course["confidence"] == 0.2
    assert (course["answered_by"], course["model"]) == ("mixed", "tinychat")
    assert (course["continued_by"], course["escalation_reason"]) == ("larger", "later_doubt")
    assert (began.cost, began.transaction) == (1_000, "0x1")


def test_an_answer_that_nobody_else_could_continue_is_tinychats_own(began):
    began.note(Part(0, replace(GOES_ON, answered_by="tinychat", model="tinychat", fallback=True)))
    record = began.record("completed")
    assert (record.answered_by, record.model, record.reason) == (
        "tinychat",
        "tinychat",
        "later_doubt",
    )
    assert (record.fallback, record.choices[0]["continued_by"]) == (True, None)


def test_of_an_answer_that_nobody_began_nobody_is_told():
    record = Progress(time.perf_counter(), choices=2).record("failed", "It broke.")
    assert (record.answered_by, record.model, record.reason) == (None, None, None)
