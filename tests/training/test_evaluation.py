import pytest

from tinybrain.config import load_settings
from tinybrain.engine.loading import load_tinychat
from tinybrain.training.beyond import beyond_reply
from tinybrain.training.evaluation import Answered, ask_all, markdown, summary
from tinybrain.training.questions import Question


def question(text, *accepted, kind="fact", known=True, wording="new", family="capital"):
    return Question(text, accepted, family, kind, known, wording, "test")


@pytest.fixture(scope="module")
def shipped():
    model = load_tinychat(load_settings(device="cpu"), slots=2)
    yield model
    model.close()


async def test_questions_are_answered_greedily_in_their_order(shipped):
    asked = [question("What is the capital of Japan?", "Tokyo"), question("Who are you?", "Tokyo")]
    done = []
    answered = await ask_all(shipped, asked, at_once=2, done=lambda: done.append(1))
    assert [one.question for one in answered] == asked
    assert [one.is_right for one in answered] == [True, False]
    assert len(done) == 2


def test_shares_are_by_group_and_wording():
    known, withheld = question("a", "yes"), question("b", "yes", known=False)
    trained = question("c", "yes", wording="trained")
    right, wrong = (Answered(known, text) for text in ("Yes.", "No."))
    result = summary([right, wrong, Answered(withheld, "No."), Answered(trained, "Yes!")])
    assert result["groups"]["known facts"] == {
        "trained": {"n": 1, "right": 1.0},
        "new": {"n": 2, "right": 0.5},
    }
    assert result["groups"]["withheld facts"]["new"] == {"n": 1, "right": 0.0}
    assert "| known facts | 3 | 1.000 | 0.500 |" in markdown(result)


def test_what_is_out_of_scope_can_only_be_declined():
    prompt = question("write an essay", kind="out_of_scope", known=False, family="writing")
    result = summary([Answered(prompt, beyond_reply()), Answered(prompt, "Paris.")])
    assert result["out_of_scope"] == {"n": 2, "declined": 0.5}
