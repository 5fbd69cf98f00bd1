"""The gate: is the small model sure enough of its first tokens for them to be shown?

One number decides, the probability of the least certain of the held-back tokens: measured on
models of this size it tells wrong answers from right ones about as well as any other signal of
the same tokens, and needs no fitting. The prompt's perplexity does not, and has no say here.
"""

import math
from dataclasses import dataclass

from tinybrain.routing.signals import Signals


@dataclass(frozen=True, slots=True)
class Gate:
    """Releases an opening of `hold_back_tokens` tokens whose confidence is high enough."""

    min_confidence: float
    hold_back_tokens: int

    def confidence(self, signals: Signals) -> float:
        """The probability, in [0, 1], that the model gave to its least certain token."""
        return math.exp(min(0.0, signals.min_logprob))

    def releases(self, signals: Signals) -> bool:
        """Whether the small model may go on with this answer."""
        return self.confidence(signals) >= self.min_confidence
