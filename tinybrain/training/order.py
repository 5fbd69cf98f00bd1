"""Facts of the calendar, the alphabet and of numbers, which follow rules, and of spelling."""

import calendar
from collections.abc import Iterator, Sequence
from itertools import pairwise
from string import ascii_uppercase

from tinybrain.training.english import in_words, roman
from tinybrain.training.facts import Fact, fact

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth"),
    *("seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"),
)
COMMON_YEAR = 2025
LARGE_NUMBERS = (*range(110, 1000, 55), *range(1100, 5000, 330))
ROUND_NUMBERS = frozenset({0, 1, 2, 3, 5, 10, 20, 100})
LONGEST_SPELLED = 9


def order_facts() -> Iterator[Fact]:
    """All but spelling."""
    yield from _calendar()
    for letter, following in pairwise(ascii_uppercase):
        yield fact("letter_after", letter, following)
    for number in (*range(101), *LARGE_NUMBERS):
        well_known = number in ROUND_NUMBERS
        yield fact("number_words", str(number), in_words(number), well_known=well_known)
        if number:
            yield fact("roman", str(number), roman(number), well_known=well_known)


def spelling_facts(words: Sequence[str]) -> Iterator[Fact]:
    """How words of up to `LONGEST_SPELLED` letters are spelled."""
    for word in dict.fromkeys(words):
        if word.isascii() and word.isalpha() and len(word) <= LONGEST_SPELLED:
            yield fact("spelling", word.lower(), "-".join(word.upper()), " ".join(word.upper()))


def _calendar() -> Iterator[Fact]:
    for names, unit in ((DAYS, "day"), (MONTHS, "month")):
        for first, second in zip(names, names[1:] + names[:1], strict=True):
            yield fact(f"{unit}_after", first, second)
            yield fact(f"{unit}_before", second, first)
    for index, (month, ordinal) in enumerate(zip(MONTHS, ORDINALS, strict=True), 1):
        days = calendar.monthrange(COMMON_YEAR, index)[1]
        yield fact("month_days", month, str(days))
        yield fact("month_number", ordinal, month, n=str(index))
