from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.signals import Signals
from tinybrain.training.beyond import beyond_reply
from tinybrain.training.evaluation import markdown, summary


def question(text, *accepted, kind="fact", known=True, wording="new", family="capital"):
    return Question(
        text=text, accepted=accepted, family=family, kind=kind, known=known, wording=wording
    )


def answered(question, text):
    return Draft(question, text, Signals.of([]))


def test_shares_are_by_group_and_wording():
    known, withheld = question("a", "yes"), question("b", "yes", known=False)
    trained = question("c", "yes", wording="trained")
    right, wrong = (answered(known, text) for text in ("Yes.", "No."))
    result = summary([right, wrong, answered(withheld, beyond_reply()), answered(trained, "Yes!")])
    assert result["groups"]["known facts"] == {
        "trained": {"n": 1, "right": 1.0, "declined": 0.0},
        "new": {"n": 2, "right": 0.5, "declined": 0.0},
    }
    assert result["groups"]["withheld facts"]["new"] == {"n": 1, "right": 0.0, "declined": 1.0}
    assert "| known facts | 3 | 1.000 | 0.500 | 0.000 |" in markdown(result)


def test_what_is_out_of_scope_can_only_be_declined():
    prompt = question("write an essay", kind="out_of_scope", known=False, family="writing")
    result = summary([answered(prompt, beyond_reply()), answered(prompt, "Paris.")])
    assert result["groups"]["out of scope"]["new"] == {"n": 2, "right": 0.0, "declined": 0.5}
