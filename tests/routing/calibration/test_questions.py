import pytest

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.questions import Question, read_questions, write_questions


def question(*accepted):
    return Question(text="Where?", accepted=accepted, family="city")


def test_one_of_the_accepted_answers_is_enough_and_none_is_no_answer():
    assert question("Rome", "Paris").is_answered_by("Paris.")
    assert not question().is_answered_by("Paris.")
    assert not Question(text="Where?").is_answered_by("Paris.")


def test_they_come_back_from_a_file(tmp_path):
    questions = [question("Paris"), Question(text="Why\u2028so?", split="test")]
    write_questions(tmp_path / "questions.jsonl", questions)
    assert read_questions(tmp_path / "questions.jsonl") == questions


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("nonsense", "the line: Invalid JSON"),
        ("{}", "text: Field required"),
        ('{"text": ""}', "text: "),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path, line, fault):
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"text": "Why?"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=f"Line 2 of .* is no question: {fault}"):
        read_questions(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.jsonl cannot be read as questions"):
        read_questions(tmp_path / "none.jsonl")
