"""Choosing tokens by tensors alone, so that the device need not be waited for.

The same choices as of `sampler.py`, which is the definition, for requests that ask for nothing but
temperature, top-k, min-p, and top-p beside a top-k. Shapes depend on a batch's `Choice` only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinybrain.engine.request import Request
from tinybrain.engine.sampler import (
    COLDEST,
    Sampler,
    fall,
    first_of_largest,
    largest,
    nucleus,
    tempered,
)

CANDIDATES = (64, 256)
"""Of so many of the likeliest tokens one is drawn; chats ask for 50, the API allows 200."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a batch needs: so many candidates, and whether some draw from all tokens."""

    candidates: int = 0
    anything: bool = False


def is_plain(request: Request) -> bool:
    """Whether `choose` can choose a request's tokens."""
    adjusted = request.logit_bias or request.repetition_penalty != 1 or request.top_logprobs
    top_p_alone = request.top_p < 1 and not request.top_k and request.temperature >= COLDEST
    return not adjusted and not top_p_alone and 0 <= request.top_k <= CANDIDATES[-1]


def is_greedy(request: Request) -> bool:
    """Whether the likeliest token is chosen without a draw."""
    return request.temperature < COLDEST or request.top_k == 1


def options(request: Request) -> list[float]:
    """A plain request's row of what `choose` takes: temperature (0: greedy), top-k, top-p, min-p.

    Without a top-p that is infinite: rounded sums exceed 1.
    """
    temperature = 0.0 if is_greedy(request) else request.temperature
    top_p = request.top_p if request.top_p < 1 else math.inf
    return [temperature, request.top_k, top_p, request.min_p]


def choice_for(samplers: Sequence[Sampler]) -> Choice:
    """What plain requests need together."""
    drawing = [s.request.top_k for s in samplers if not is_greedy(s.request)]
    most = max(drawing, default=0)
    candidates = next(count for count in CANDIDATES if count >= most) if most else 0
    return Choice(candidates, anything=0 in drawing)


def choose(logits: Tensor, options: Tensor, draws: Tensor, choice: Choice) -> Tensor:
    """Ids [B] from float logits [B, V], rows of `options` [B, 4], and draws [B] in [0, 1)."""
    temperature, top_k, top_p, min_p = options[..., None].unbind(1)
    warm = temperature.clamp_min(COLDEST)
    ids = first_of_largest(logits)[:, None]
    if choice.candidates:
        values, likeliest = largest(logits, min(choice.candidates, logits.shape[-1]))
        ranks = torch.arange(values.shape[-1], device=logits.device)
        weights = tempered(values.masked_fill(ranks >= top_k, -math.inf), warm)
        weights = weights * nucleus(weights, top_p) * _likely(weights, min_p)
        drawn = likeliest.gather(-1, fall(weights, draws))
        ids = torch.where((temperature > 0) & (top_k > 0), drawn, ids)
    if choice.anything:
        weights = tempered(logits, warm)
        drawn = fall(weights * _likely(weights, min_p), draws)
        ids = torch.where((temperature > 0) & (top_k == 0), drawn, ids)
    return ids[:, 0]


def _likely(weights: Tensor, min_p: Tensor) -> Tensor:
    return weights >= min_p * weights.amax(-1, keepdim=True)
