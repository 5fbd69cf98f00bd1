"""Does the small model's answer say what the larger one's says? Deterministic, English only.

What is in the small answer beyond the question's own words must stand in the larger answer, or
all of a terse larger answer in the small one: names, numbers, words that mean something. No model
is asked, so that a label costs nothing but the answer; the price is that only short answers of
fact can be told apart. Where the words cannot decide, there is no label: small talk, paraphrases,
a larger model that does not know.

Known to go wrong: a wrong answer that the larger one mentions as an aside counts as right, one
right word said otherwise ("car", "automobile") as wrong, and the larger model as never wrong.
"""

import re
import unicodedata

OTHERS_ALLOWED = 2
"""So many plain words that the larger answer lacks make another answer; more, a paraphrase."""
LONGEST = 30
"""An answer of more words of its own is an essay, of which single words say little."""
LONGEST_TEXT = 4_000
"""Characters; comparing takes time from the streams of its process."""

FUNCTION_WORDS = """
a about all also am an and any are as at be been being but by can could did do does for from had
has have he her here his how i if in into is it its itself just me my of off on or our out over
own she so some such than that the their them then there these they this those to too under up us
very was we were what when where which while who whom whose why will with would you your
called known named means mean meaning word answer yes no
"""
BELOW_TWENTY = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
FROM_TWENTY = "twenty thirty forty fifty sixty seventy eighty ninety"

STOP_WORDS = frozenset(FUNCTION_WORDS.split())
NUMBERS = {word: str(number) for number, word in enumerate(BELOW_TWENTY.split())}
TENS = {word: 10 * number for number, word in enumerate(FROM_TWENTY.split(), start=2)}
TWO_WORDS = re.compile(rf"\b({'|'.join(TENS)})[ -]({'|'.join(list(NUMBERS)[1:10])})\b")
SHORT = 3
"""Words up to this length keep their s: gas, bus."""
ASKED_POLITELY = re.compile(
    r"\b(?:(?:can|could|would|will) you(?: please)?|do you (?:know|happen to know))\b|\btell me\b",
    re.IGNORECASE,
)
OF_THE_MODEL = re.compile(r"\b(?:you|your|yours|yourself|u)\b", re.IGNORECASE)
ASKS = re.compile(
    r"\?|\d|\b(?:what|who|whose|whom|which|when|where|how|name|tell|give|define|spell|say)\b",
    re.IGNORECASE,
)
DOES_NOT_KNOW = re.compile(
    r"\b(?:i(?: do not|['\u2019]?m not| am not| can(?:no|['\u2019])t| don['\u2019]t)\b"
    r"|as an ai\b|i['\u2019]?m sorry|i am sorry|unable to|no (?:reliable )?information)",
    re.IGNORECASE,
)
DENIED = re.compile(r"(?:\b(?:not|never)\b|n['\u2019]t\b)(?:(?!\bbut\b)[^.,;:!?])*", re.IGNORECASE)
YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
HOLDS_ITS_ANSWER = re.compile(
    r"\bor\b|\A\W*(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should)\b",
    re.IGNORECASE,
)
SHORT_FORM = re.compile(r"(?<=\w)'(?:s|m|d|re|ve|ll)\b")
SPELLED = re.compile(r"(?<![\w'-])[^\W\d_](?:(?: - |-| )[^\W\d_]){2,}(?![\w'-])")
NEGATIVE = ("minus", "negative")
WORD = re.compile(
    r"(?<![\w-])[^\W\d_](?:-[^\W\d_]){2,}(?![\w-])"
    r"|(?:(?<![\w.)\]])-)?\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+(?:['\u2019][^\W\d_]+)?"
)


def agrees(question: str, small: str, larger: str) -> bool | None:
    """Whether `small` answers `question` as `larger` does; None where the words do not tell."""
    question, small, larger = (text[:LONGEST_TEXT] for text in (question, small, larger))
    if not _asks_for_facts(question) or not larger.strip() or DOES_NOT_KNOW.search(larger):
        return None
    said, heard = _yes_or_no(small), _yes_or_no(larger)
    if said and heard and said != heard:
        return False
    asked = _words(question)
    own = _words(small) - asked
    if not own:
        return _echo_agrees(question, small, larger) if said is None else said == heard or None
    if len(own) > LONGEST or DENIED.search(small):
        return None
    others = _words(DENIED.sub(" ", larger)) - asked
    missing = own - others
    if not missing or (others and others <= own):
        return True
    differs = any(_is_number(word) for word in missing) or missing & _names(small)
    return False if differs or len(own) <= OTHERS_ALLOWED else None


def _echo_agrees(question: str, small: str, larger: str) -> bool | None:
    """False where the larger answer adds something short to the question, and the small nothing.

    Not where the question holds its answer. A number may be its own answer, as in 4 - 2: it is
    another than the larger one's only where that adds a number.
    """
    asked, echo = _words(question), _words(small)
    others = _words(larger) - asked
    if not echo or not 0 < len(others) <= OTHERS_ALLOWED or YES_OR_NO.match(larger):
        return None
    if HOLDS_ITS_ANSWER.search(question) or DENIED.search(small) or DENIED.search(larger):
        return None
    if any(map(_is_number, echo)) and not any(map(_is_number, others)):
        return None
    return False


def _asks_for_facts(question: str) -> bool:
    """Not what is said to the model itself, as in small talk."""
    question = ASKED_POLITELY.sub(" ", question)
    return not OF_THE_MODEL.search(question) and ASKS.search(question) is not None


def _yes_or_no(answer: str) -> str | None:
    found = YES_OR_NO.match(answer)
    return found[1].lower() if found else None


def _words(text: str) -> set[str]:
    """The words that mean something, in one spelling each."""
    text = SHORT_FORM.sub("", _numbers_joined(_plain(text).casefold()))
    text = SPELLED.sub(lambda found: re.sub("[- ]+", "-", found[0]), text)
    words: set[str] = set()
    before, sign = "", ""
    for word in map(_normal, WORD.findall(text)):
        if word in NEGATIVE and not _is_number(before):
            sign = "-"
        elif word not in STOP_WORDS:
            words.add(sign + word if _is_number(word) else word)
        before, sign = word, sign if word in NEGATIVE else ""
    return words


def _names(answer: str) -> set[str]:
    """Words with a capital inside a sentence; at its beginning every word has one."""
    inside = re.findall(r"(?<![.!?:]\s)(?<!^)\b[A-Z]\w*", _plain(answer).strip())
    return {_normal(word.casefold()) for word in inside}


def _plain(text: str) -> str:
    """Without accents and typographic marks."""
    letters = unicodedata.normalize("NFKD", text.translate({0x2019: "'", 0x2212: "-"}))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _numbers_joined(text: str) -> str:
    """Forty-two as 42."""
    return TWO_WORDS.sub(lambda found: str(TENS[found[1]] + int(NUMBERS[found[2]])), text)


def _normal(word: str) -> str:
    """A number without commas and idle zeros; a word without the ending of a plural."""
    if _is_number(word):
        number = word.replace(",", "")
        return number.rstrip("0").rstrip(".") if "." in number else number
    if word in NUMBERS or word in TENS:
        return NUMBERS.get(word) or str(TENS[word])
    plural = len(word) > SHORT and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if plural else word


def _is_number(word: str) -> bool:
    return word.removeprefix("-")[:1].isdigit()
