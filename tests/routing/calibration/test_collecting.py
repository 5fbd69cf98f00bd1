"""Drafts are the shipped model's own greedy answers, with the signals that the gate will have."""

import pytest

from tests.routing.scripted import PLAIN, PREFILLED, Scripted, World, tokens
from tinybrain.chat import Finished, Sampling, Token
from tinybrain.config import load_settings
from tinybrain.engine.loading import load_tinychat
from tinybrain.errors import LocalModelError
from tinybrain.routing.calibration.collecting import Draft, draft_all, drafted
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.events import Decision
from tinybrain.routing.signals import Signals

JAPAN = Question(text="What is the capital of Japan?", accepted=("Tokyo",), family="capital")
WHO = Question(text="Who are you?", accepted=("Tokyo",))


@pytest.fixture(scope="module")
def shipped():
    model = load_tinychat(load_settings(device="cpu"), slots=2)
    yield model
    model.close()


async def test_questions_are_answered_greedily_in_their_order(shipped):
    done = []
    drafts = await draft_all(shipped, [JAPAN, WHO], hold_back_tokens=3, at_once=2, done=done.append)
    assert [one.question for one in drafts] == [JAPAN, WHO]
    assert [one.is_right for one in drafts] == [True, False]
    assert [one.signals.tokens for one in drafts] == [3, 3]
    assert sorted(one.answer for one in done) == sorted(one.answer for one in drafts)


async def test_an_answer_worked_out_unseen_is_measured_as_the_gate_measures_it():
    unseen = [Token("", -0.1 * i, 0.1 * i, 0.5) for i in range(1, 5)]
    told = Token("25", -9.0, 3.0, 0.1, forced=True)
    script = [PREFILLED, *unseen, told, *tokens("."), Finished("stop", 4, 6)]
    _, calibrated = await drafted(Scripted("tinychat", script), PLAIN, Sampling(), 3)
    events = await World([script], hold_back=3).ask()
    (served,) = (event for event in events if isinstance(event, Decision))
    assert served.signals == calibrated
    assert calibrated.tokens == 3


async def test_nothing_runs_on_behind_an_answer_that_was_read():
    model = Scripted("tinychat", [PREFILLED, *tokens("Hi"), Finished("stop", 4, 1)])
    await drafted(model, PLAIN, Sampling(), 3)
    assert model.open == 0


async def test_an_answer_that_breaks_off_is_told():
    class Broken:
        name = "broken"

        async def generate(self, messages, sampling):
            return
            yield

    with pytest.raises(LocalModelError, match="broke off"):
        await draft_all(Broken(), [JAPAN], hold_back_tokens=3, at_once=1)


@pytest.mark.parametrize(
    ("answer", "right", "declined"),
    [("Tokyo.", True, False), ("I do not know. Tokyo?", False, True)],
)
def test_what_was_declined_is_not_right(answer, right, declined):
    draft = Draft(JAPAN, answer, Signals.of([]))
    outcome = draft.outcome(right=draft.is_right, declines="I do not know")
    assert (outcome.family, outcome.right, outcome.declined) == ("capital", right, declined)
    assert not draft.outcome(right=True, declines=None).declined
