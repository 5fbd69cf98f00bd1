"""Attention of decoded tokens whose slots and positions only the device knows.

Shapes depend on nothing but the size of the batch and the length that is looked at, so that a
step can be captured and replayed.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from tinybrain.engine.attention import attention, visible


class DecodeRows(ABC):
    """A `Context` in which row i appends one token at positions[i] to slots[i] of a cache's store.

    `before`, `slots` and `positions` are [B]; every position is below `length`.
    """

    def __init__(
        self, store: Tensor, *, before: Tensor, slots: Tensor, positions: Tensor, length: int
    ) -> None:
        self.before = before[:, None]
        self.positions = positions.contiguous()[:, None]  # kernels take no strides
        self._store, self._slots, self._length = store, slots, length

    @abstractmethod
    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> Tensor:
        """See `Context`."""


class GatheredRows(DecodeRows):
    """Plain torch: gathers what the slots hold, and masks what lies behind the positions."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> Tensor:
        """See `Context`."""
        keys, values = self._store[layer]
        keys[self._slots[:, None], :, self.positions] = k.to(keys.dtype)
        values[self._slots[:, None], :, self.positions] = v.to(values.dtype)
        places = torch.arange(self._length, device=q.device)
        return attention(
            q,
            keys[self._slots, :, : self._length],
            values[self._slots, :, : self._length],
            visible(self.positions, places, window),
        )
