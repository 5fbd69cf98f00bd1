"""What people make of one wording: capitals or none, marks or none, a word more or less."""

import re
from random import Random

from tinybrain.training.english import capitalised

PREFIXES = (
    *("hi, ", "hello, ", "hey, ", "ok, ", "so, ", "well, ", "now, ", "and "),
    *("actually, ", "i wonder, ", "just asking: "),
    *("quick question: ", "a question: ", "please tell me: ", "excuse me, ", "say, "),
)
SUFFIXES = (" please", ", please", " thanks", ", thanks", ", thank you", ", tinychat")
ASKING = frozenset(
    {
        *("what", "which", "who", "whose", "whom", "where", "when", "why", "how", "is", "are"),
        *("do", "does", "did", "can", "could", "will", "would", "has", "have", "should", "am"),
        *("may", "must", "in", "on", "at", "of", "by", "from", "to", "for", "with"),
    }
)
NEEDLESS_ARTICLE = re.compile(r"\bthe (?=[a-z]+ (?:of|for)\b)")
"""As in "the capital of France"; not in "the sun", which is another thing than a sun."""
LOWER_CASE = 0.35
"""How often nothing is written with a capital."""


def surface(text: str, random: Random, *, courtesy: float = 0.15) -> str:
    """One way to type a wording; `courtesy` is how often words that say nothing come or go."""
    marks = ("?", "?", "", " ?") if re.split(r"[ ',]", text)[0] in ASKING else (".", "", "", "!")
    if random.random() < courtesy:
        text = NEEDLESS_ARTICLE.sub("", text)
    if random.random() < courtesy:
        text = random.choice(PREFIXES) + text
    if random.random() < courtesy / 2:
        text += random.choice(SUFFIXES)
    text += random.choice(marks)
    if random.random() < LOWER_CASE:
        return text.lower()
    return capitalised(re.sub(r"\bi\b", "I", text))


def plain(text: str) -> str:
    """A text as all its surfaces have it in common."""
    text = " ".join(re.sub(r"[^\w+\-*/' ]", " ", text.lower()).split())
    for prefix in PREFIXES:
        text = text.removeprefix(prefix.strip(" ,:") + " ")
    for suffix in SUFFIXES:
        text = text.removesuffix(" " + suffix.strip(" ,"))
    return NEEDLESS_ARTICLE.sub("", text)
