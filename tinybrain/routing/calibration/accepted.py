"""Does an answer hold what counts as right? Decided by its words alone, without any model.

It errs towards wrong: to a gate, a wrong answer that is taken for right is the worse mistake.
"""

import re
import unicodedata

MARKS = re.compile(r"(?<=\d)[, ](?=\d{3}(?!\d))|[.,;:!?\"]+(?=\s|$)|[_*`\"]")
BEGINNING = re.compile(r"(?:(?:it|that|this|is|are|the|a|an|in|on) )*", re.IGNORECASE)
SYMBOL_LETTERS = 2
"""So many an element's symbol has at most."""

ENGLISH_SYMBOLS = frozenset(["I", "No", "In", "As", "At", "Be", "He", "Am"])
"""Symbols of elements that are words, too: they only count where no sentence goes on from them."""


def holds(answer: str, accepted: str, *, question: str = "") -> bool:
    """Whether `accepted` stands in the answer as whole words.

    Where it stands in the question as well, it could be an echo, and must come first. Case counts
    for one or two letters with a capital, such as the symbols of elements. Accents do not.
    """
    answer, accepted, question = _plain(answer), _plain(accepted), _plain(question)
    if accepted in ENGLISH_SYMBOLS:
        return (
            re.search(rf"^{accepted}(?: (?:is|has|comes|stands)\b|$)|\b{accepted}$", answer)
            is not None
        )
    if len(accepted) > SYMBOL_LETTERS or accepted.islower():
        answer, accepted, question = answer.lower(), accepted.lower(), question.lower()
    whole = re.compile(rf"(?<![\w-])(?<!\d\.)(?<!not ){re.escape(accepted)}(?![\w-]|\.\d)")
    if whole.search(question):
        begin = BEGINNING.match(answer)
        return whole.match(answer) is not None or bool(begin and whole.match(answer, begin.end()))
    return whole.search(answer) is not None


def _plain(text: str) -> str:
    """Without accents, typographic apostrophes and the marks that clauses and numbers have."""
    letters = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(MARKS.sub("", bare).split())
