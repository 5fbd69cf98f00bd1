"""Log-probabilities as OpenAI's `logprobs` tells them, read as what the model was sure of.

Of a cut list of the likeliest tokens no entropy is known, only bounds of it; the margin between
the first two is exact. Strict: a figure that cannot be a log-probability is an error, because a
gate that believed it would let through whatever comes with it.
Source: OpenAI API reference, chat completions.
"""

import math
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from tinybrain.chat import TokenLogprob
from tinybrain.errors import UpstreamError
from tinybrain.faults import first_fault

ROUNDING = 1e-3  # servers round, in 16 bits at worst

Logprob = Annotated[
    float, Field(le=ROUNDING, allow_inf_nan=False), AfterValidator(lambda value: min(value, 0.0))
]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Candidate(BaseModel):
    token: str
    logprob: Logprob
    # "bytes" in the format; pydantic's own name for a type.
    raw_bytes: list[Byte] | None = Field(None, alias="bytes")

    @property
    def raw(self) -> bytes:
        """As bytes, which may end inside a character where its text cannot."""
        if self.raw_bytes is not None:
            return bytes(self.raw_bytes)
        return self.token.encode(errors="replace")


class ToldToken(_Candidate):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[_Candidate] = []

    @model_validator(mode="after")
    def _is_a_distribution(self) -> Self:
        if sum(math.exp(candidate.logprob) for candidate in self.top_logprobs) > 1 + ROUNDING:
            raise ValueError("the likeliest tokens have a probability of over 1 together")
        return self

    @property
    def margin(self) -> float | None:
        """Probability of the likeliest token less that of the second, where two are told."""
        best = sorted((math.exp(top.logprob) for top in self.top_logprobs), reverse=True)[:2]
        return best[0] - best[1] if len(best) == 2 else None  # noqa: PLR2004  # a pair

    def with_top(self, count: int) -> TokenLogprob:
        """As callers are told, with the `count` likeliest."""
        ranked = sorted(self.top_logprobs, key=lambda top: -top.logprob)[:count]
        return TokenLogprob(self.raw, self.logprob, tuple((top.raw, top.logprob) for top in ranked))


class _Logprobs(BaseModel):
    content: list[ToldToken] | None = None


class _Choice(BaseModel):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] | None = None


def told_in(data: str) -> list[ToldToken]:
    """The tokens of the first choice that a chunk, or a whole completion, tells.

    Raises:
        UpstreamError: What is told is no log-probability.
    """
    try:
        chunk = _Chunk.model_validate_json(data)
    except ValidationError as error:
        where, what = first_fault(error)
        raise UpstreamError(
            f"The server tells what are no log-probabilities: {where}: {what}."
        ) from None
    return [
        token
        for choice in chunk.choices or ()
        if choice.index == 0 and choice.logprobs
        for token in choice.logprobs.content or ()
    ]
