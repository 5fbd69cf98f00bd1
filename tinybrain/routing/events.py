"""What an answer is made of, whoever writes it: the decision, the text, the end.

Nothing here knows a wire format; the HTTP layer turns each event into its own bytes.
"""

from dataclasses import dataclass
from typing import Literal

from tinybrain.chat import FinishReason, Prefilled, TokenLogprob
from tinybrain.routing.signals import Signals
from tinybrain.usdc import Usdc

AnsweredBy = Literal["tinychat", "upstream"]
EscalationReason = Literal[
    "none",
    "keyword",
    "complexity",
    "out_of_scope",
    "declined",
    "uncertainty",
    "later_doubt",
    "failure",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who answers, and why; comes once, before the first text.

    `model` is the name to show, `rule` the rule that decided or, where the gate did, the one for
    simple questions that matched; `perplexity` TinyChat's of the prompt, `confidence` the gate's
    1 - P(wrong) and `signals` what it judged. These four are None where none was asked.
    `fallback` says that TinyChat answers because the upstream it should have been could not.
    """

    answered_by: AnsweredBy
    model: str
    reason: EscalationReason = "none"
    rule: str | None = None
    perplexity: float | None = None
    confidence: float | None = None
    signals: Signals | None = None
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer, never empty.

    `logprobs` are of the tokens it is made of, where they were asked for and TinyChat answers.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next piece of the reasoning before the answer, never empty."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """Who goes on with an answer that TinyChat began, and why; comes before the first that is seen.

    `confidence` is 1 - P(wrong) where TinyChat's own words were held back, `signals` what was
    judged there. `fallback` says that TinyChat goes on all the same, because the upstream that
    should have could not.
    """

    answered_by: AnsweredBy
    model: str
    reason: EscalationReason
    confidence: float
    signals: Signals | None = None
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """The last event: token counts of all that answered, the prompt's once, and what was paid."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cost: Usdc = Usdc(0)
    transaction: str | None = None


AnswerEvent = Prefilled | Decision | Delta | ReasoningDelta | Continued | Completed
