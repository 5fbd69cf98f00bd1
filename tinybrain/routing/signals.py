"""The small model's own doubt, measured on the prompt and on the first tokens of its answer.

Knows nothing of thresholds: it measures, the gate judges.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Self

from tinybrain.chat import Finished, Prefilled, Token

CEILING = 30.0
"""So many nats stand for infinitely many."""

DEEPEST: Mapping[str, float] = MappingProxyType(
    {
        "perplexity": math.exp(CEILING),
        "user_perplexity": math.exp(CEILING),
        "first_entropy": CEILING,
        "max_entropy": CEILING,
        "mean_entropy": CEILING,
        "min_margin": 0.0,
    }
)
"""What is recorded where a signal is not finite. Log-probabilities have None for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Doubt over `tokens` tokens; natural logs, at temperature 1. None is what was not told.

    All are recorded with the answer. The perplexities are of the whole prompt and of the last user
    message: they tell how usual the wording is, not whether the answer is known.
    """

    perplexity: float | None
    user_perplexity: float | None
    first_entropy: float | None
    min_logprob: float
    mean_logprob: float
    max_entropy: float | None
    mean_entropy: float | None
    min_margin: float | None
    tokens: int

    @classmethod
    def of(cls, tokens: Sequence[Token], prefilled: Prefilled | None = None) -> Self:
        """Measure `tokens` but those that were forced.

        None at all, or a NaN among them, is the deepest doubt. Entropies and margins that a model
        does not tell with every token are unknown.
        """
        tokens = [token for token in tokens if not token.forced]
        logprobs = [_known(token.logprob, -math.inf) for token in tokens] or [-math.inf]
        entropies = _told([token.entropy for token in tokens], math.inf)
        margins = _told([token.margin for token in tokens], 0.0)
        return cls(
            perplexity=prefilled.perplexity if prefilled else None,
            user_perplexity=prefilled.user_perplexity if prefilled else None,
            first_entropy=entropies[0] if entropies else None,
            min_logprob=min(logprobs),
            mean_logprob=sum(logprobs) / len(logprobs),
            max_entropy=max(entropies) if entropies else None,
            mean_entropy=sum(entropies) / len(entropies) if entropies else None,
            min_margin=min(margins) if margins else None,
            tokens=len(tokens),
        )

    @classmethod
    def of_opening(
        cls, events: Sequence[Token | Finished], tokens: int, prefilled: Prefilled | None
    ) -> Self:
        """Measure the first `tokens` tokens of an answer that begins with these events.

        More than these are held back while there is nothing to show, and all are there where an
        answer is calibrated with: the gate judges the same ones in both.
        """
        generated = [event for event in events if isinstance(event, Token)]
        return cls.of(generated[:tokens], prefilled)

    def recorded(self) -> dict[str, float | int | None]:
        """As they are kept, in JSON: what is unknown as None, what is infinite as `DEEPEST`."""
        return {
            name: value if value is None or math.isfinite(value) else DEEPEST.get(name)
            for name, value in asdict(self).items()
        }

    @classmethod
    def read(cls, recorded: Mapping[str, Any]) -> Self:
        """What `recorded` gave; a log-probability that is missing is the deepest doubt.

        Raises:
            ValueError: A name is unknown, or a value is no number.
        """
        names = {field.name for field in fields(cls)}
        if unknown := recorded.keys() - names:
            raise ValueError(f"there is no signal {min(unknown)!r}")
        found: dict[str, Any] = {name: _number(name, recorded.get(name)) for name in names}
        for name in ("min_logprob", "mean_logprob"):
            found[name] = -math.inf if found[name] is None else found[name]
        return cls(**found | {"tokens": int(found["tokens"] or 0)})


def _known(value: float, otherwise: float) -> float:
    # NaN compares false with everything, so min() and max() would pass over it.
    return otherwise if math.isnan(value) else value


def _told(values: Sequence[float | None], otherwise: float) -> list[float]:
    """All of them, or none if one was not told."""
    told = [_known(value, otherwise) for value in values if value is not None]
    return told if len(told) == len(values) else []


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, which is no number")
    return float(value)
