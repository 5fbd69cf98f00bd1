"""The small model's own doubt, measured on the first tokens of its answer.

Knows nothing of thresholds: it measures, the gate judges.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from tinybrain.chat import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Certainty over `tokens` tokens; natural logs, at temperature 1.

    All are recorded with the answer; the gate uses `min_logprob`. `perplexity` is of the prompt:
    it tells how usual the wording is, not whether the answer is known.
    """

    perplexity: float | None
    first_entropy: float
    min_logprob: float
    mean_logprob: float
    max_entropy: float
    min_margin: float
    tokens: int

    @classmethod
    def of(cls, tokens: Sequence[Token], *, perplexity: float | None = None) -> Self:
        """Measure `tokens` but those that were forced.

        None at all, or a NaN among them, is the deepest doubt.
        """
        tokens = [token for token in tokens if not token.forced]
        logprobs = [_known(token.logprob, -math.inf) for token in tokens] or [-math.inf]
        entropies = [_known(token.entropy, math.inf) for token in tokens] or [math.inf]
        margins = [_known(token.margin, 0.0) for token in tokens] or [0.0]
        return cls(
            perplexity=perplexity,
            first_entropy=entropies[0],
            min_logprob=min(logprobs),
            mean_logprob=sum(logprobs) / len(logprobs),
            max_entropy=max(entropies),
            min_margin=min(margins),
            tokens=len(tokens),
        )

    def recorded(self) -> dict[str, float | int | None]:
        """As the ledger keeps them; what is infinite or unknown becomes None, as in JSON."""
        return {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in asdict(self).items()
        }


def _known(value: float, otherwise: float) -> float:
    # NaN compares false with everything, so min() and max() would pass over it.
    return otherwise if math.isnan(value) else value
