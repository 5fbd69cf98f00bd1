"""How surprising tokens are to the model, in bounded memory.

TinyChat's perplexity of a prompt: exp of the mean negative log-likelihood of its tokens 2..T,
special tokens included (tuggspeedman-ai/tinychat, nanochat/engine.py).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

CHUNK_ROWS = 128
"""Rows of logits alive at once; a whole 2048-token prompt over 65,536 words would take 537 MB."""


def negative_log_likelihoods(
    logits: Callable[[Tensor], Tensor], hidden: Tensor, ids: Tensor, *, chunk: int = CHUNK_ROWS
) -> Tensor:
    """Negative log-likelihood [T] of each token of ids [T], in nats.

    `hidden` [T, C] are the states in front of each, which `logits` maps from [n, C] to [n, V]; it
    is called with at most `chunk` rows.
    """
    nll = torch.empty(len(ids), device=ids.device)
    for start in range(0, len(ids), chunk):
        rows = logits(hidden[start : start + chunk])
        chosen = rows.gather(-1, ids[start : start + chunk, None]).squeeze(-1)
        nll[start : start + chunk] = rows.logsumexp(-1) - chosen
    return nll


def perplexity(nll: Sequence[float]) -> float | None:
    """Perplexity of tokens with these negative log-likelihoods; None of no tokens."""
    return math.exp(math.fsum(nll) / len(nll)) if nll else None
