import json
import math

import pytest
import ranking
import saving
from cases import Case, Drafts, declining, questions_in_new_wordings
from deciding import deciding
from doubts import RULES, baselines, heeding_declining
from gating import Kept, families_left_out, fit, gate_for, is_shown, with_signal_alone
from judging import Aim, best_simple, on_feasibility, on_keeping, on_ranking, on_reaching
from keeping import P_WRONG, Split, over_random_halves, split_row, where_most_wrong_are_caught
from made_up_cases import case, world
from measuring import RANKED, Measurement, without_router
from ranking import Interval, Ranking, calibration_row
from routing import README, printed, with_results
from saving import LARGER_RIGHT, Curve
from trivia import answer_trivia, read_trivia

from tinybrain.config import load_settings
from tinybrain.engine.loading import load_tinychat
from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.draft_file import DraftFile
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.calibration.target import Target
from tinybrain.usdc import Usdc

STRICT = Target(max_local_error=0.05)
JAPAN = Question(text="What is the capital of Japan?", accepted=("Tokyo",), family="capital")
WHO = Question(text="Who are you?", accepted=("TinyChat",), family="name", kind="talk")


@pytest.fixture(scope="module")
def cases():
    return world()


@pytest.fixture(scope="module")
def router(cases):
    return fit(cases, seed=0, target=STRICT)


@pytest.fixture(scope="module")
def shipped():
    model = load_tinychat(load_settings(device="cpu"), slots=2)
    yield model
    model.close()


def drafts(folder, questions, *, fresh=False):
    file = DraftFile(folder, checkpoint="0" * 16, precision="16-bit", hold_back_tokens=8)
    return Drafts(file, questions, fresh=fresh)


async def test_what_was_asked_once_is_not_asked_again(shipped, tmp_path):
    await drafts(tmp_path, [JAPAN]).ask(shipped, at_once=1)
    again = drafts(tmp_path, [WHO, JAPAN])
    assert again.missing == [WHO]
    await again.ask(shipped, at_once=2)
    cases = drafts(tmp_path, [WHO, JAPAN]).cases(declines=None)
    assert [(one.text, one.right) for one in cases] == [(WHO.text, True), (JAPAN.text, True)]
    assert drafts(tmp_path, [JAPAN], fresh=True).missing == [JAPAN]


def test_without_others_facts_the_projects_own_are_asked_in_new_wordings(tmp_path):
    questions, whose = questions_in_new_wordings(tmp_path)
    assert {question.wording for question in questions} == {"new"}
    assert {question.split for question in questions} == {"calibration", "test"}
    assert whose.startswith("the project's own (")


def test_what_is_declined_is_told_by_its_first_sentence():
    draft = Draft(WHO, f"{declining()}. Ask another.", case().signals)
    assert Case.of(draft, declining()).declined
    assert not Case.of(draft, None).declined


def test_a_signal_that_is_not_told_is_no_baseline():
    told = case()
    untold = case(text="Write a function in Python.")
    assert "mean entropy" in baselines([told, untold], seed=0)
    assert baselines([told, untold], seed=0)[RULES] == [0.5, 1.0]


def test_what_the_model_declined_is_the_most_doubtful():
    assert heeding_declining([1.0, 2.0], [case(declined=True), case()]) == [math.inf, 2.0]


def test_no_router_judges_a_family_that_it_saw(cases):
    cases = cases[:600]
    calibration = [one for one in cases if one.split == "calibration"]
    test = [one for one in cases if one.split == "test"]
    parts = list(families_left_out(calibration, test, seed=0, target=STRICT))
    for part in parts:
        seen = {one.family for one in part.router.outcomes}
        assert seen.isdisjoint(one.family for one in part.cases)
    assert sorted(one.text for part in parts for one in part.cases) == sorted(
        one.text for one in test
    )


def test_where_no_gate_reaches_the_target_nothing_is_kept(cases):
    hopeless = [case(right=i % 4 == 0, text=str(i), family=str(i % 3)) for i in range(400)]
    router = fit(hopeless, seed=0, target=STRICT)
    gate = gate_for(router, STRICT)
    assert gate is None
    assert Kept.of(gate, cases) == (len(cases), 0, 0)
    assert not Split.of(gate, cases).meets(1.0)


def test_rules_gate_and_declining_decide_together(router):
    gate = gate_for(router, STRICT)
    sure = 0.001
    assert is_shown(gate, case(sure))
    assert not is_shown(gate, case(9.0))
    assert not is_shown(gate, case(sure, declined=True))
    assert not is_shown(gate, case(sure, text="Think hard: what is it?"))
    assert is_shown(gate, case(9.0, text="Who made you?"))


def test_one_signal_alone_judges_by_nothing_else(router, cases):
    alone = with_signal_alone(router, "perplexity", cases, seed=0)
    assert set(alone.opening.weights) <= {"perplexity"}


def test_over_random_halves_a_doubt_that_tells_meets_its_target(cases):
    kept = over_random_halves(cases, splits=2)
    splits = kept[0.1, P_WRONG]
    assert all(split.meets(0.1) and split.all.share > 0.4 for split in splits)
    assert split_row(0.1, P_WRONG, splits)["target met"] == "2 of 2"
    assert not any(split.was_possible for split in kept[0.1, "prompt perplexity"])
    assert any(said.startswith("At a local error of 10%") for said in on_keeping(kept))


def test_a_threshold_that_catches_most_wrong_facts_is_chosen_on_other_questions():
    chosen_on = [case(right=False) for _ in range(10)]
    measured = [case(right=False), case(right=True), case(right=True, kind="talk")]
    scores = {"a score": [[float(i) for i in range(10)]]}
    (row,) = where_most_wrong_are_caught(
        scores, {"a score": [[1.0, 0.5, 3.0]]}, chosen_on, measured
    )
    assert row["wrong facts caught"] == "100.0%"
    assert row["right facts escalated"] == "0.0%"
    assert row["right talk escalated"] == "100.0%"
    assert row["out of scope let through"] == "-"


def test_an_ideal_order_buys_the_same_quality_for_the_least():
    right = [True, True, False, False]
    ideal = Curve.of([0, 0, 1, 1], right)
    worst = Curve.of([1, 1, 0, 0], right)
    assert ideal.at(0) == 0.5
    assert ideal.at(1) == pytest.approx(LARGER_RIGHT)
    assert ideal.least_for(1.0) == 0.5
    assert worst.least_for(1.0) == 1.0
    assert ideal.apgr > 0.5 > worst.apgr


def test_at_random_half_of_the_gap_is_recovered():
    right = [i % 2 == 0 for i in range(2000)]
    assert Curve.of([0.0] * 2000, right).apgr == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("interval", "reached"),
    [
        ((0.97, 0.96, 0.98), "yes"),
        ((0.97, 0.94, 0.98), "yes, not shown"),
        ((0.95, 0.94, 0.97), "no, not shown"),
        ((0.90, 0.88, 0.92), "no"),
    ],
)
def test_an_aim_is_shown_to_be_reached_only_by_all_of_its_interval(interval, reached):
    assert Aim("a figure", 0.96, True, Interval(*interval)).reached == reached


def test_it_is_said_where_a_simple_signal_wins():
    asked = [case(right=i % 2 == 0, family=str(i % 2)) for i in range(200)]
    knows = [float(not one.right) for one in asked]
    guesses = [float(i % 3) for i in range(200)]
    names = (P_WRONG, "mean entropy")
    for scores, said in (
        ((guesses, knows), "A simple signal wins: mean entropy beats P(wrong)"),
        ((knows, guesses), "P(wrong) beats mean entropy"),
        ((knows, knows), "P(wrong) is not shown to be better or worse"),
    ):
        named = {name: [one] for name, one in zip(names, scores, strict=True)}
        ranked = Ranking(asked, named, seed=0)
        assert on_ranking(ranked, best_simple(ranked)).startswith(said)


def test_a_model_that_is_mostly_wrong_is_said_to_be_escalated_whatever_the_signals():
    assert "Nearly all must be escalated" in on_feasibility(0.94, 0.05)
    assert "Nearly all" not in on_feasibility(0.5, 0.05)


def test_at_best_as_much_is_kept_as_the_ranking_allows():
    asked = [case(right=right) for right in (True, True, False, True)]
    row = calibration_row("a score", asked, [[0.1, 0.2, 0.3, 0.4]], (0.05, 0.25))
    assert (row["kept at 5%, at best"], row["kept at 25%, at best"]) == ("50.0%", "100.0%")


def test_a_target_that_no_split_reaches_is_told_as_such():
    nothing = Split.of(None, [case()])
    assert on_keeping({(0.05, P_WRONG): [nothing], (0.05, "mean entropy"): [nothing]}) == []
    assert "In 1 of 1 splits no threshold is shown to reach it" in on_reaching(0.05, [nothing])


def test_a_model_without_a_router_is_still_measured(cases, monkeypatch):
    monkeypatch.setattr(ranking, "REPEATS", 10)
    found = without_router(cases[:300], "too few are right")
    assert "No router can be fitted: too few are right" in printed("A model", found, {"n": 1})
    assert {row["score"] for row in found.tables[RANKED]} >= {"lowest log-probability", "random"}


def test_everything_can_be_printed_and_written(cases, monkeypatch):
    for module in (ranking, saving):
        monkeypatch.setattr(module, "REPEATS", 10)
    found = Measurement(cases[:600], splits=1, seeds=(0,)).measure(Usdc(5_000))
    assert "| P(wrong) |" in printed("A model", found, {})
    assert json.loads(json.dumps(found.recorded())) == found.recorded()
    assert {aim.figure for aim in found.aims} >= {"AUROC, pooled", "out of scope let through"}


async def test_the_decision_takes_less_than_a_millisecond_beside_the_tokens_held_back(
    shipped, router
):
    row, aim = await deciding(shipped, router, [JAPAN] * 5)
    assert row["n"] == 2
    assert aim.measured.value > 0
    assert float(str(row["the decision itself ms"]).split()[0]) < 1


def test_trivia_are_a_fixed_sample_in_both_splits(tmp_path):
    file = tmp_path / "trivia.jsonl"
    lines = [{"question": f"Who is {i}?", "answer": str(i), "topic": "people"} for i in range(50)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = read_trivia(file, count=10)
    assert asked == read_trivia(file, count=10)
    assert [one.split for one in asked].count("test") == 5
    assert all(one.is_answered_by(one.accepted[0]) for one in asked)


async def test_smollm2_answers_trivia_behind_its_api_with_what_it_was_sure_of(tmp_path):
    question = Question(text="What is the capital of Japan?", accepted=("Tokyo",), family="world")
    (found,) = await answer_trivia([question], tmp_path, fresh=False)
    assert found.right
    assert found.signals.tokens > 4
    assert -1 < found.signals.min_logprob < 0 < found.signals.min_margin < 1
    assert found.signals.perplexity is None


def test_results_replace_those_before_in_the_readme():
    once = with_results(README.read_text(), "old results")
    twice = with_results(once, "new results")
    assert "new results" in twice
    assert "old results" not in twice
    assert len(twice) == len(once)
