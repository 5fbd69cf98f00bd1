import pytest

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.questions import Question, read_questions, write_questions


def question(*accepted):
    return Question(text="?", accepted=accepted, family="symbol")


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        ("Paris", "Paris is the capital of France."),
        ("Paris", "The capital of France is Paris."),
        ("woof", "Woof!"),
        ("no", "No legs."),
        ("Au", "Au is the symbol of gold."),
        ("1,000", "1000 metres."),
        ("C-A-T", "C-A-T spells cat."),
        ("+33", "+33 is the calling code of France."),
        ("Washington, D.C.", "It is Washington, D.C."),
    ],
)
def test_an_accepted_answer_may_stand_anywhere(accepted, answer):
    assert question(accepted).is_answered_by(answer)


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        ("In", "Iridium is in the table."),
        ("four", "Fourteen legs."),
        ("8", "18."),
        ("85", "8.5"),
        ("Paris", "Parish"),
    ],
)
def test_only_as_whole_words_and_symbols_as_they_are_written(accepted, answer):
    assert not question(accepted).is_answered_by(answer)


def test_they_come_back_from_a_file(tmp_path):
    questions = [question("Paris"), Question(text="Why?", split="test")]
    write_questions(tmp_path / "questions.jsonl", questions)
    assert read_questions(tmp_path / "questions.jsonl") == questions


@pytest.mark.parametrize(
    ("line", "fault"),
    [("", "the line: Invalid JSON"), ("{}", "text: Field required"), ('{"text": ""}', "text: ")],
)
def test_a_line_that_is_no_question_is_named(tmp_path, line, fault):
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"text": "Why?"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=f"Line 2 of .* is no question: {fault}"):
        read_questions(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.jsonl cannot be read as questions"):
        read_questions(tmp_path / "none.jsonl")
