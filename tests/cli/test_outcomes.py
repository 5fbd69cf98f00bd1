"""Drafts become outcomes: none that a judging which ended early would not have come to."""

from pathlib import Path

from tinybrain.cli.outcomes import Wishes, label_all
from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.judging import Judging, judging_order, needs_judging
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.signals import Signals
from tinybrain.usdc import Usdc

WISHES = Wishes(
    questions=Path("questions.jsonl"),
    out=Path("router.json"),
    report=None,
    target=Target(max_local_error=0.1),
    declines="No",
    every=1,
    at_once=1,
    budget=Usdc(1_000),
    seed=3,
)


def test_declined_drafts_end_where_the_judging_did(capsys):
    drafts = [
        Draft(Question(text=f"Why {i}?"), "No idea." if i % 2 else "So.", Signals.of([]))
        for i in range(200)
    ]
    known = Draft(Question(text="Who?", accepted=("I",)), "I.", Signals.of([]))
    order = judging_order(drafts, seed=WISHES.seed)
    waiting = [draft for draft in order if needs_judging(draft, declines="No")]
    judged = {(draft.question.text, draft.answer): True for draft in waiting[:50]}
    outcomes, test = label_all(WISHES, [known, *drafts], Judging(judged))
    assert (sum(not o.declined for o in outcomes), test) == (51, [])
    assert 25 < sum(o.declined for o in outcomes) < 75
    assert f"{201 - len(outcomes)} questions are left out" in capsys.readouterr().out
