"""Only a whole answer that the gate judged alone may be labelled."""

from dataclasses import replace

import pytest

from tinybrain.api.choices import Part
from tinybrain.api.labelling import answered
from tinybrain.api.progress import Progress
from tinybrain.api.requests import ChatRequest
from tinybrain.chat import Message, Sampling
from tinybrain.routing.events import Completed, Decision, Delta
from tinybrain.routing.signals import Signals

REQUEST = ChatRequest(
    messages=[Message("user", "Hi?")],
    sampling=Sampling(),
    local_sampling=Sampling(top_k=3),
    model="tinybrain",
    mode="auto",
    stream=False,
)
KEPT = Decision(answered_by="tinychat", model="tinychat", signals=Signals.of([]))
BOUGHT = replace(KEPT, answered_by="upstream", reason="uncertainty")
WHOLE = Completed("stop", 3, 2)


def offered(decision, end=WHOLE, choices=1):
    progress = Progress(0.0, choices)
    for event in (decision, Delta("Hel"), Delta("lo"), end):
        progress.note(Part(0, event))
    return answered(REQUEST, "ans_1", progress.choices[0], progress.record("completed"))


@pytest.mark.parametrize(("decision", "source"), [(KEPT, "audit"), (BOUGHT, "escalated")])
def test_a_judged_answer_goes_over_whole(decision, source):
    found = offered(decision)
    assert (found.source, found.text, found.answer_id) == (source, "Hello", "ans_1")
    assert (found.signals, found.local_sampling.top_k) == (KEPT.signals, 3)


@pytest.mark.parametrize(
    ("decision", "options"),
    [
        (replace(KEPT, signals=None), {}),
        (replace(BOUGHT, answered_by="tinychat", fallback=True), {}),
        (KEPT, {"end": replace(WHOLE, finish_reason="length")}),
        (KEPT, {"choices": 2}),
    ],
    ids=["not judged", "stood in", "cut short", "one of several"],
)
def test_others_are_not(decision, options):
    assert offered(decision, **options) is None
