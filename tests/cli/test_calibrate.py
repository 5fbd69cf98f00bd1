"""`tinybrain calibrate`, with the model that ships and real questions."""

import json

import pytest
from typer.testing import CliRunner

from tinybrain.cli import app
from tinybrain.cli.calibrate import choose_target
from tinybrain.config import load_settings
from tinybrain.errors import ConfigError, LocalModelError
from tinybrain.routing.calibration.assembly import checkpoint_of, open_gate
from tinybrain.routing.calibration.draft_file import DraftFile
from tinybrain.routing.calibration.questions import Question, write_questions
from tinybrain.routing.calibration.router import Router
from tinybrain.routing.calibration.target import Target
from tinybrain.training.knowledge import Knowledge, own_facts
from tinybrain.training.questions import build_questions


def some_questions():
    """As many of each kind as there are, up to the number, the last fifth of them for the test."""
    kinds = {}
    for question in build_questions(Knowledge(own_facts(), seed=1)):
        kinds.setdefault(question.kind, []).append(question)
    chosen = [q for some in kinds.values() for q in some[:: max(1, len(some) // 75)][:75]]
    return [
        question.model_copy(update={"split": "test" if i % 5 == 4 else "calibration"})
        for i, question in enumerate(chosen)
    ]


def run(folder, *arguments):
    line = ["calibrate", str(folder / "questions.jsonl"), "--home", str(folder), *arguments]
    return CliRunner().invoke(app, [*line, "--out", str(folder / "router.json")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    write_questions(folder / "questions.jsonl", some_questions())
    return folder


@pytest.fixture(scope="module")
def interrupted(folder):
    """A call in which the small model fails when 100 drafts are kept."""
    append, kept = DraftFile.append, []

    def append_100(file, draft):
        if len(kept) == 100:
            raise LocalModelError("It failed.")
        kept.append(draft)
        append(file, draft)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DraftFile, "append", append_100)
        return run(folder)


@pytest.fixture(scope="module")
def calibrated(folder, interrupted):
    report = ["--report", str(folder / "report")]
    return run(folder, "--target-escalation-rate", "0.6", "--seed", "1", *report)


def drafts(folder):
    (path,) = (folder / "calibration").glob("drafts-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_call_that_was_interrupted_goes_on_where_it_was(folder, interrupted, calibrated):
    assert interrupted.exit_code == 1
    assert calibrated.exit_code == 0, calibrated.output
    assert "100 drafts of an earlier call are used again" in calibrated.output
    asked = [draft["question"] for draft in drafts(folder)]
    assert len(asked) == len(set(asked)) > 200


def test_the_router_is_the_checkpoints_and_works(folder, calibrated):
    router = Router.read(folder / "router.json")
    router.require(checkpoint_of(load_settings()).digest())
    gate = open_gate(load_settings(router=folder / "router.json"))
    assert gate.opening.max_p_wrong == pytest.approx(router.report.threshold, abs=1e-4)
    assert router.target == Target(escalation_rate=0.6)


def test_the_report_is_told_written_and_kept_in_the_router(folder, calibrated):
    report = Router.read(folder / "router.json").report
    assert json.loads((folder / "report" / "report.json").read_text()) == report.model_dump(
        mode="json"
    )
    assert f"P(wrong) is at most {report.threshold:.3f}" in calibrated.output
    assert report.checkpoint in (folder / "report" / "calibration.md").read_text()
    assert (folder / "report" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert report.p_wrong.pooled.value > 0.6
    assert (report.price, report.upstream_cost) == (10_000, 5_000)
    assert "TINYBRAIN_ROUTER" in calibrated.output


def test_the_same_call_again_asks_nothing_and_writes_the_same(folder, calibrated):
    before = (folder / "router.json").read_bytes()
    kept = len(drafts(folder))
    again = run(folder, "--target-escalation-rate", "0.6", "--seed", "1")
    assert f"{kept} drafts" in again.output
    assert (folder / "router.json").read_bytes() == before


def test_a_target_that_cannot_be_reached_is_refused_with_the_least_escalation(folder, calibrated):
    result = run(folder, "--max-local-error", "0.0001")
    assert result.exit_code == 1
    assert "Even an ideal gate would have to escalate" in result.stderr


def test_questions_that_name_no_family_are_calibrated_with(folder, calibrated, tmp_path):
    plain = [q.model_copy(update={"family": "", "kind": ""}) for q in some_questions()]
    write_questions(tmp_path / "questions.jsonl", plain)
    (tmp_path / "calibration").symlink_to(folder / "calibration")
    result = run(tmp_path, "--target-escalation-rate", "0.6")
    assert result.exit_code == 0, result.output
    report = Router.read(tmp_path / "router.json").report
    assert (report.families, report.families_left_out) == (1, None)


def test_what_nobody_can_label_is_left_out_and_said(folder, calibrated, tmp_path):
    unlabelled = [q.model_copy(update={"accepted": None}) for q in some_questions()]
    write_questions(tmp_path / "questions.jsonl", unlabelled)
    (tmp_path / "calibration").symlink_to(folder / "calibration")
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "have no accepted answers" in result.output
    assert "0 outcomes" in result.stderr


def test_too_few_questions_are_refused_before_any_is_asked(tmp_path):
    write_questions(tmp_path / "questions.jsonl", [Question(text="Why?", accepted=("so",))] * 300)
    result = run(tmp_path)
    assert (result.exit_code, "has 1 questions to calibrate with" in result.stderr) == (1, True)
    assert not (tmp_path / "calibration").exists()


def test_a_file_that_is_missing_is_named(tmp_path):
    result = run(tmp_path)
    assert (result.exit_code, "cannot be read as questions" in result.stderr) == (1, True)


def test_a_budget_that_is_no_amount_is_a_usage_error(tmp_path):
    assert run(tmp_path, "--budget", "plenty").exit_code == 2


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ({"escalation_rate": 0.2, "max_local_error": None}, Target(escalation_rate=0.2)),
        ({"escalation_rate": None, "max_local_error": None}, Target(max_local_error=0.1)),
    ],
)
def test_what_is_asked_for_wins_over_what_is_set(asked, target):
    assert choose_target(load_settings(max_local_error=0.1), **asked) == target


def test_nothing_asked_for_and_nothing_set_is_an_error_of_five_percent():
    found = choose_target(load_settings(), escalation_rate=None, max_local_error=None)
    assert found == Target(max_local_error=0.05)


@pytest.mark.parametrize("asked", [(0.2, 0.2), (1.5, None), (None, 0.0)])
def test_two_targets_or_none_that_is_a_share_are_refused(asked):
    with pytest.raises(ConfigError, match="Give one of"):
        choose_target(load_settings(), escalation_rate=asked[0], max_local_error=asked[1])
