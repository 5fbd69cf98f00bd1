"""What P(wrong) is estimated from: signals as numbers of which more is always more doubt.

Each is a logarithm, because doubt is spread over orders of magnitude, with a floor below which
rounding decides and a ceiling that stands for whatever is infinite.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tinybrain.routing.signals import CEILING, Signals

PREFILL = ("perplexity", "user_perplexity")
"""What is known before the first token."""

RAW = "min_logprob"
"""What is used alone where nothing better is shown to be."""


def _log(value: float | None, floor: float) -> float | None:
    return None if value is None else math.log(floor + _bounded(value, CEILING))


def _perplexity(value: float | None) -> float | None:
    return None if value is None else math.log(max(1.0, _bounded(value, math.exp(CEILING))))


def _bounded(value: float, ceiling: float) -> float:
    return ceiling if math.isnan(value) else min(max(value, 0.0), ceiling)


def _lack(margin: float | None) -> float | None:
    return None if margin is None else 1 - margin


FEATURES: Mapping[str, Callable[[Signals], float | None]] = MappingProxyType(
    {
        "perplexity": lambda s: _perplexity(s.perplexity),
        "user_perplexity": lambda s: _perplexity(s.user_perplexity),
        "first_entropy": lambda s: _log(s.first_entropy, 1e-2),
        "min_logprob": lambda s: _log(-s.min_logprob, 1e-3),
        "mean_logprob": lambda s: _log(-s.mean_logprob, 1e-3),
        "max_entropy": lambda s: _log(s.max_entropy, 1e-2),
        "mean_entropy": lambda s: _log(s.mean_entropy, 1e-2),
        "min_margin": lambda s: _log(_lack(s.min_margin), 1e-2),
    }
)
"""Each is finite; None is what the model did not tell."""
