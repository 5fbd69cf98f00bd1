"""Attention, and where it finds the keys and values of earlier positions.

A model calls its `Context` once a layer and does not know whether there is a cache behind it.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Context(Protocol):
    """The surroundings of one forward pass over [B, T] tokens.

    `positions` [B, T] says where in its sequence each token stands.
    """

    positions: Tensor

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q [B, T, H, D] to k and v [B, T, Hkv, D] and all before; [B, T, H, D]."""
        ...


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend from q [B, T, H, D] to k and v [B, Hkv, S, D]; gives [B, T, H, D].

    `mask` [B, 1, T, S] is true where a query may look; None means causal, with S equal to T.
    """
    y = functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.shape[2] != k.shape[1],
    )
    return y.transpose(1, 2)


class WholeSequence:
    """A context without a cache: every row is a whole sequence from its first token on."""

    def __init__(self, ids: Tensor) -> None:
        self.positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002  # the same for each layer
        """See `Context`."""
        return attention(q, k.transpose(1, 2), v.transpose(1, 2), mask=None)
