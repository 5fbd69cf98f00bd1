"""What is kept of an answer gives the same answer again."""

import json

from tinybrain.api.choices import Choice, Part
from tinybrain.api.replies import events_of, reply_of
from tinybrain.api.running import Receipt
from tinybrain.chat import Prefilled, TokenLogprob
from tinybrain.routing.events import Completed, Continued, Decision, Delta, ReasoningDelta
from tinybrain.usdc import Usdc

RECEIPT = Receipt("ans_1", {"receipt": "ans_1"})
LOCAL = [
    Prefilled(3.0, 5, user_perplexity=4.0),
    Decision(answered_by="tinychat", model="tinychat", confidence=0.9),
    Delta("Hi", (TokenLogprob("\u65e5".encode()[:2], -0.5, ((b"", -1.5),)),)),
    Completed("stop", 5, 1),
]
BOUGHT = [
    Decision(answered_by="upstream", model="larger", reason="keyword"),
    ReasoningDelta("hm"),
    Delta("Well."),
    Completed("length", 9, 3, Usdc(900), "0xa"),
]
CONTINUED = [
    *LOCAL[:-1],
    Continued(answered_by="upstream", model="larger", reason="later_doubt", confidence=0.2),
    ReasoningDelta("hm"),
    Delta(" there."),
    Completed("stop", 5, 4, Usdc(900), "0xa"),
]


def kept(*choices):
    """An answer as the ledger gives it back."""
    gathered = [Choice() for _ in choices]
    for choice, events in zip(gathered, choices, strict=True):
        for event in events:
            choice.note(event)
    return json.loads(json.dumps(reply_of(gathered, RECEIPT)))


def test_every_choice_is_told_again_under_its_index():
    told = [Part(index, event) for index, events in enumerate((LOCAL, BOUGHT)) for event in events]
    assert events_of(kept(LOCAL, BOUGHT)) == [*told, RECEIPT]


def test_an_answer_of_two_models_is_told_again_as_theirs():
    assert events_of(kept(CONTINUED)) == [*(Part(0, event) for event in CONTINUED), RECEIPT]


def test_a_reply_kept_before_there_were_choices_is_the_only_one():
    reply = kept(LOCAL)
    (only,) = reply.pop("choices")
    assert events_of(reply | only) == [*(Part(0, event) for event in LOCAL), RECEIPT]
