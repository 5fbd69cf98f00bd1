import pytest

from tinybrain.routing.calibration.accepted import holds


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        ("Paris", "Paris is the capital of France."),
        ("Paris", "The capital of France is _Paris_."),
        ("woof", "Woof!"),
        ("no", "No legs."),
        ("Au", "Au is the symbol of gold."),
        ("In", "In is the symbol of indium."),
        ("I", "Its symbol is I."),
        ("I", "I comes after H."),
        ("1,000", "1000 metres."),
        ("1000", "1 000 metres."),
        ("C-A-T", "C-A-T spells cat."),
        ("+33", "+33 is the calling code of France."),
        ("Washington, D.C.", "It is Washington, D.C."),
        ("Yaound\u00e9", "Yaounde is the capital of Cameroon."),
        ("St. John's", "St. John\u2019s is the capital."),
    ],
)
def test_an_accepted_answer_may_stand_anywhere(accepted, answer):
    assert holds(answer, accepted)


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        ("In", "Iridium is in the table."),
        ("No", "No, I do not know."),
        ("I", "I do not know."),
        ("four", "Fourteen legs."),
        ("one", "Eighty-one."),
        ("8", "18."),
        ("7", "-7"),
        ("5", "2.5"),
        ("85", "8.5"),
        ("D-O-G", "D-O-G-S spells dogs."),
        ("Paris", "Parish"),
        ("Paris", "It is not Paris."),
    ],
)
def test_only_as_whole_words_and_symbols_as_they_are_written(accepted, answer):
    assert not holds(answer, accepted)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Kuwait has Kuwait City as its capital.", True),
        ("It is Kuwait.", True),
        ("Iraq has Kuwait City as its capital.", False),
    ],
)
def test_what_stands_in_the_question_counts_only_at_the_beginning(answer, right):
    assert holds(answer, "Kuwait", question="Which country has the capital Kuwait City?") is right
