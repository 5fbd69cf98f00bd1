"""How surprising a prompt is to the model, in bounded memory.

TinyChat's definition: exp of the mean negative log-likelihood of prompt tokens 2..T, special
tokens included (tuggspeedman-ai/tinychat, nanochat/engine.py).
"""

import math
from collections.abc import Callable

from torch import Tensor

CHUNK_ROWS = 128
"""Rows of logits alive at once; a whole 2048-token prompt over 65,536 words would take 537 MB."""


def perplexity(
    logits: Callable[[Tensor], Tensor], hidden: Tensor, ids: Tensor, *, chunk: int = CHUNK_ROWS
) -> float | None:
    """Perplexity of prompt ids [T] under hidden states [T, C]; None for a prompt of one token.

    `logits` maps [n, C] to [n, V] and is called with at most `chunk` rows.
    """
    predicted = len(ids) - 1
    if predicted == 0:
        return None
    nll = 0.0
    for start in range(0, predicted, chunk):
        end = min(start + chunk, predicted)
        rows = logits(hidden[start:end])
        chosen = rows.gather(-1, ids[start + 1 : end + 1, None]).squeeze(-1)
        nll += (rows.logsumexp(-1) - chosen).sum().item()
    return math.exp(nll / predicted)
