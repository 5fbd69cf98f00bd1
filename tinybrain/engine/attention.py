"""Attention, and where it finds the keys and values of earlier positions.

A model calls its `Context` once a layer and does not know whether there is a cache behind it.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

MANY_QUERIES = 16
"""From here on attention is bound by arithmetic, in which fp32 is faster than fp16 on a CPU."""


class Context(Protocol):
    """The surroundings of one forward pass over [B, T] tokens.

    `positions` [B, T] says where in its sequence each token stands.
    """

    positions: Tensor

    @property
    def before(self) -> Tensor:
        """The token ids [B, T] one place back; what it says of a first token means nothing."""
        ...

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> Tensor:
        """Attend from q [B, T, H, D] to k and v [B, T, Hkv, D] and those before; [B, T, H, D].

        With a `window`, to itself and that many before.
        """
        ...


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend from q [B, T, H, D] to k and v [B, Hkv, S, D]; gives [B, T, H, D] in q's type.

    `mask` [B, 1, T, S] is true where a query may look. None means that one query sees everything,
    and of several causal, with S equal to T. Keys and values may be of a shorter type than queries.
    """
    if q.shape[1] < MANY_QUERIES or q.device.type != "cpu":
        # Reading the cache is the work then, and converting it would be more of that; a GPU is
        # also fastest in 16 bits.
        y = _attention(q.to(k.dtype), k, v, mask)
    else:
        y = _attention(q, k.to(q.dtype), v.to(q.dtype), mask)
    return y.to(q.dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    y = functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None and q.shape[1] > 1,
        enable_gqa=q.shape[2] != k.shape[1],
    )
    return y.transpose(1, 2)


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which of the positions keys [S] each query at queries [..., T] sees; [..., 1, T, S]."""
    seen = keys <= queries[..., None]
    if window is not None:
        seen &= keys >= queries[..., None] - window
    return seen.unsqueeze(-3)


class WholeSequence:
    """A context without a cache: every row is a whole sequence from its first token on."""

    def __init__(self, ids: Tensor) -> None:
        self._places = torch.arange(ids.shape[1], device=ids.device)
        self.positions = self._places.expand(ids.shape)
        self._ids = ids

    @property
    def before(self) -> Tensor:
        """See `Context`."""
        return self._ids.roll(1, dims=1)

    def attend(
        self,
        layer: int,  # noqa: ARG002  # the same for each
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        window: int | None = None,
    ) -> Tensor:
        """See `Context`."""
        mask = None if window is None else visible(self.positions, self._places, window)
        return attention(q, k.transpose(1, 2), v.transpose(1, 2), mask)
