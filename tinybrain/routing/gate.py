"""The gate: is the small model sure enough of its first tokens for them to be shown?

It is asked twice. When the prompt is read it can only say that the question is clearly out of
scope, which saves the draft; when the first tokens are there it decides. In a long answer it is
asked again about later tokens, where a limit is set for them.

Without a calibration one number decides, the probability of the least certain of the held-back
tokens: of all signals that need no fitting it is among the best in telling wrong answers from right
ones. The prompt's perplexity alone is not, and has no say then.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tinybrain.routing.signals import Signals

Estimate = Callable[[Signals], float]
"""P(wrong), or what stands for it, in [0, 1]."""

UNCALIBRATED_HOLD_BACK = 8


def least_certain_token(signals: Signals) -> float:
    """What the least certain token lacks to probability 1."""
    return 1 - math.exp(min(0.0, signals.min_logprob))


class Verdict(NamedTuple):
    """P(wrong), and whether the small model may go on."""

    p_wrong: float
    passes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """An estimate of P(wrong), and up to where it passes."""

    estimate: Estimate
    max_p_wrong: float

    def judge(self, signals: Signals) -> Verdict:
        """The estimate, and whether it is low enough."""
        p_wrong = self.estimate(signals)
        return Verdict(p_wrong, p_wrong <= self.max_p_wrong)

    def passes(self, signals: Signals) -> bool:
        """Whether the estimate is low enough."""
        return self.judge(signals).passes


# What caught 90 % of the wrong answers of the first model that shipped; 77 % of the present one's.
UNCALIBRATED = Limit(estimate=least_certain_token, max_p_wrong=0.12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Releases an opening of `hold_back_tokens` tokens that is sure enough."""

    opening: Limit = UNCALIBRATED
    prefill: Limit | None = None
    later: Limit | None = None
    """Up to where as many tokens after the opening pass; None: they are not judged."""
    hold_back_tokens: int = UNCALIBRATED_HOLD_BACK
    declines: str | None = None
    """How the small model begins to say that it does not know: that is as good as not answering."""

    def judge_prompt(self, signals: Signals) -> Verdict:
        """Whether the small model may try, as far as the prompt alone tells."""
        return self.prefill.judge(signals) if self.prefill else Verdict(0.0, passes=True)

    def judge_opening(self, signals: Signals, *, declined: bool = False) -> Verdict:
        """Whether the small model may go on with this answer; never where it declined."""
        return Verdict(1.0, passes=False) if declined else self.opening.judge(signals)

    def is_declined(self, opening: str) -> bool:
        """Whether the small model itself hands the question on."""
        return self.declines is not None and opening.startswith(self.declines)
