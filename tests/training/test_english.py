import pytest

from tinybrain.training.english import capitalised, in_words, roman, spellings, with_article


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (110, "one hundred and ten"),
        (999, "nine hundred and ninety-nine"),
        (1005, "one thousand and five"),
        (4750, "four thousand seven hundred and fifty"),
    ],
)
def test_numbers_are_written_in_words(number, words):
    assert in_words(number) == words


@pytest.mark.parametrize(
    ("number", "numeral"), [(4, "IV"), (9, "IX"), (49, "XLIX"), (94, "XCIV"), (2026, "MMXXVI")]
)
def test_numbers_are_written_as_the_romans_did(number, numeral):
    assert roman(number) == numeral


def test_a_number_may_be_told_in_digits_or_in_words():
    assert spellings("four") == ("4",)
    assert "one thousand" in spellings("1,000")
    assert spellings("Paris") == ()


def test_nouns_get_their_article():
    assert (with_article("owl"), with_article("dog")) == ("an owl", "a dog")


def test_only_the_first_letter_is_made_large():
    assert capitalised("the euro") == "The euro"
