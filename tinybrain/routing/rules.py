"""Rules on the question's wording, applied before any model reads it.

Three families, each of which can be switched off:

1. *keyword*: the caller asks for the larger model in so many words ("think hard"). Always obeyed.
2. *self_referential*: questions about TinyChat itself stay local, whatever the rules below say.
3. *complexity*: what a small model surely cannot do (code, advanced mathematics, reasoning,
   several questions at once, translation, long requests) escalates at once. Simple facts and
   simple sums do not: TinyChat knows some of them ("What is the capital of Japan?"), and its
   own doubt tells which. For these the rule is only a *prior*: recorded, without a verdict.

Everything is bounded by words, so "summer" is no "sum", and words that small talk shares with
programs ("class", "function", "return") count only inside a phrase or syntax. The expressions
take linear time: repetitions are bounded or cannot give back what they took.

Nothing here knows models or messages other than the last one of the user.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tinybrain.chat import Message
from tinybrain.routing.events import EscalationReason

Prior = Literal["math", "factual"]

LONG_QUESTION = 200
"""Characters above which a question counts as complex."""

WORDS_OF_A_QUESTION = 4
"""Shorter questions ("How are you?") do not make a request multi-part."""


@dataclass(frozen=True, slots=True)
class RuleDecision:
    """What the rules say: `verdict` None leaves it to the model's own doubt."""

    verdict: Literal["local", "escalate"] | None = None
    reason: EscalationReason = "none"
    rule: str | None = None
    prior: Prior | None = None


def _words(*phrases: str) -> str:
    return r"\b(?:" + "|".join(phrases).replace(" ", r"\s+") + r")\b"


def _compile(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE | re.MULTILINE)


KEYWORD = _compile(
    _words(
        *("think hard", "use advanced", "be smart", "reason carefully"),
        *("complex", "difficult", "challenging", "deep thinking"),
    )
)

SELF_REFERENTIAL = _compile(
    _words(
        *("tinychat", "tiny chat", "tinybrain", "tiny brain"),
        "your (?:name|creator|parameters?|model|training|architecture|size|weights?)",
        "who (?:made|built|created|trained) you",
        *("about yourself", "tell me about you", "(?:what|who) are you"),
        *("how many parameters", "how big are you"),
    )
)

ADVANCED_MATH = _compile(
    _words(
        *("solve", "equations?", "integrals?(?! part)", "derivatives?", "factorials?", "sqrt"),
        *("logarithms?", "algebra", "geometry", "trigonometry", "probability", "statistics"),
        *("matrix", "matrices"),
    )
)
SIMPLE_MATH = _compile(
    r"(?<!\d)\d++\s*+[x*/+\-^%\u00d7\u00f7]\s*+\d",
    _words("calculate", "compute", "percent", "multiply", "sum", "average"),
)

CODE_VERB = "(?:write|implement|code|debug|refactor)"
CODE_NOUN = "(?:function|class|code|program|script|method|algorithm|loop|query)"
AMBIGUOUS_LANGUAGE = "(?:python|java|ruby|rust|swift|scala|perl|bash)"
CODE = _compile(
    r"```",
    _words("javascript", "typescript", "golang", "kotlin", "haskell", "php", "html", "css", "sql"),
    r"\bC(?:\+\+|#)",
    _words(f"(?:in|using|with) {AMBIGUOUS_LANGUAGE}", f"{AMBIGUOUS_LANGUAGE} {CODE_NOUN}"),
    rf"\b{CODE_VERB}(?:\s+\w+){{0,4}}\s+{CODE_NOUN}\b",
    _words("source code", "programming", "algorithms?", "compiler", "unit tests?", "regex"),
    r"\bdef\s+\w+\s*\(",
    r"\bclass\s+\w+\s*(?:[({]|:\s*$)",
    r"\bfunction\s*\w*\(",
    r"\basync\s+(?:def|function)\b",
    r"\bawait\s+[\w.]+\(",
    r"\bfrom\s+[\w.]+\s+import\b",
    r"^import\s[\w.]+;?$",
    r"\bexport\s+(?:default|const|function|class)\b",
    r"\b(?:const|let|var|type)\s+\w+\s*=",
    r"\binterface\s+\w+\s*\{",
    r"\bconsole\.log\b",
    r"\bprint\(",
    r"\b(?:for|while|if)\s?\([^()\n]{1,80}\)\s?\{",
    r"\breturn\b[^;\n]{0,80};$",
    r"=>",
)

FACTUAL = _compile(
    _words(
        *("who is", "who was", r"what(?: is|['\u2019]s) the capital", "when did", "where is"),
        *("how many", "how much", "what year", "population of", "president of", "founded in"),
        *("invented", "discovered", "history of", "explain how"),
    ),
    r"\bhow\s+does\b[^\n]{1,200}?\bwork\b",
)

REASONING = _compile(
    _words(
        *("compare", "contrast", "analy[sz]e", "evaluate", "pros and cons", "advantages"),
        *("disadvantages", "step by step", "explain why", "what would happen", "implications"),
        *("trade-?offs?", "differences? between"),
    ),
    r"\bif\b[^.?!\n]{1,200}?\bthen\b",
)

TRANSLATION = _compile(
    _words(
        *("translate", "translation"),
        "in (?:spanish|french|german|chinese|japanese|korean|arabic|russian|portuguese"
        "|italian|hindi|esperanto|latin)",
    )
)

NUMBERED_ITEM = re.compile(r"^[ \t]{0,20}\d{1,3}[.)][ \t]++\S", re.MULTILINE)
SENTENCE = re.compile(r"[^.?!\n]++[.?!\n]?")


def _is_multi_part(text: str) -> bool:
    questions = [
        sentence
        for sentence in SENTENCE.findall(text)
        if sentence.endswith("?") and len(sentence.split()) >= WORDS_OF_A_QUESTION
    ]
    return len(questions) > 1 or len(NUMBERED_ITEM.findall(text)) > 1


def _is_long(text: str) -> bool:
    return len(text) > LONG_QUESTION


BEYOND_A_SMALL_MODEL: dict[str, Callable[[str], object]] = {
    "math": ADVANCED_MATH.search,
    "code": CODE.search,
    "reasoning": REASONING.search,
    "multi_part": _is_multi_part,
    "translation": TRANSLATION.search,
    "length": _is_long,
}
PRIORS: dict[Prior, Callable[[str], object]] = {
    "math": SIMPLE_MATH.search,
    "factual": FACTUAL.search,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The families of rules that are switched on."""

    keyword: bool = True
    complexity: bool = True
    self_referential: bool = True

    def decide(self, messages: Sequence[Message]) -> RuleDecision:
        """Judge the last user message; a conversation without one gets no verdict."""
        text = next((m.content for m in reversed(messages) if m.role == "user"), "").strip()
        if self.keyword and KEYWORD.search(text):
            return RuleDecision("escalate", "keyword", "keyword")
        if self.self_referential and SELF_REFERENTIAL.search(text):
            return RuleDecision("local", rule="self_referential")
        return _complexity(text) if self.complexity else RuleDecision()


def _complexity(text: str) -> RuleDecision:
    for rule, applies in BEYOND_A_SMALL_MODEL.items():
        if applies(text):
            return RuleDecision("escalate", "complexity", rule)
    return RuleDecision(prior=next((rule for rule, is_it in PRIORS.items() if is_it(text)), None))
