"""Drafts outlive the call that made them, and are of one checkpoint alone."""

from pathlib import Path

import pytest

from tinybrain.chat import Prefilled, Token
from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.collecting import Draft
from tinybrain.routing.calibration.draft_file import DraftFile
from tinybrain.routing.calibration.questions import Question
from tinybrain.routing.signals import Signals

WHY, WHO = Question(text="Why?\nTell me.", accepted=("so",)), Question(text="Who?")
SIGNALS = Signals.of([Token("a", -0.3, 0.2, 0.1)], Prefilled(3.0, 4, user_perplexity=2.5))


@pytest.fixture
def file(tmp_path):
    return drafts_of(tmp_path, "0123456789abcdef")


def drafts_of(home, checkpoint):
    return DraftFile(home / "new", checkpoint=checkpoint, precision="fp32", hold_back_tokens=8)


def test_what_was_kept_is_found_by_its_question(file):
    drafts = [Draft(WHY, "So.", SIGNALS), Draft(WHO, "Me…", SIGNALS)]
    for draft in drafts:
        file.append(draft)
    assert file.read([WHY, WHO]) == {WHY.text: drafts[0], WHO.text: drafts[1]}
    assert file.read([WHO]) == {WHO.text: drafts[1]}


def test_the_question_as_it_is_now_says_what_is_right(file):
    file.append(Draft(WHY, "So.", SIGNALS))
    now = Question(text=WHY.text, accepted=("because",))
    assert not file.read([now])[WHY.text].is_right


def test_another_checkpoint_has_drafts_of_its_own(file, tmp_path):
    file.append(Draft(WHY, "So.", SIGNALS))
    assert drafts_of(tmp_path, "fedcba9876543210").read([WHY]) == {}


def test_a_line_that_was_cut_off_is_asked_again(file):
    file.append(Draft(WHY, "So.", SIGNALS))
    with file.path.open("a") as opened:
        opened.write('{"question": "Who?", "ans')
    assert file.read([WHY, WHO]).keys() == {WHY.text}
    file.append(Draft(WHO, "Me.", SIGNALS))
    assert file.read([WHY, WHO]).keys() == {WHY.text, WHO.text}


def test_a_cut_line_is_taken_away_without_writing_the_others_again(file, monkeypatch):
    file.append(Draft(WHY, "So.", SIGNALS))
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + b'{"question": "Who?", "ans')
    monkeypatch.setattr(Path, "write_bytes", None)
    assert file.read([WHY]).keys() == {WHY.text}
    assert file.path.read_bytes() == whole


def test_a_line_ends_at_a_line_feed_alone(file):
    file.append(Draft(WHY, "So.", SIGNALS))
    kept = file.path.read_text().replace("So.", "So\u2028or\x85so.")
    file.path.write_text(f"\n{kept}", encoding="utf-8")
    assert file.read([WHY])[WHY.text].answer == "So\u2028or\x85so."


@pytest.mark.parametrize("line", ["{}", "null", '{"question": [], "answer": "", "signals": {}}'])
def test_what_is_no_draft_is_named(file, line):
    file.append(Draft(WHY, "So.", SIGNALS))
    with file.path.open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(ConfigError, match=r"Line 2 of .* is no draft.*Delete the file"):
        file.read([WHY])
