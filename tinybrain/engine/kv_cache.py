"""Keys and values of the running requests: one preallocated slot of `sequence_len` for each.

Knows nothing of requests; whoever allocates a slot remembers how much of it is filled.
"""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from tinybrain.engine.attention import attention, visible
from tinybrain.engine.gpt import GPTConfig


class KVCache:
    """A store [layers, 2, slots, kv heads, sequence_len, head_dim] and its free slots."""

    def __init__(
        self, config: GPTConfig, slots: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.n_layer, 2, slots, config.n_kv_head, config.sequence_len, config.head_dim)
        # Zeros, not empty: a masked position has weight 0, and 0 times a stray NaN is NaN.
        self.store = torch.zeros(shape, dtype=dtype, device=device)
        self._free = list(range(slots))

    @property
    def free_slots(self) -> int:
        """How many slots nobody holds."""
        return len(self._free)

    def allocate(self) -> int:
        """Take the lowest free slot, so that the slots in use stay close together.

        Raises:
            IndexError: No slot is free.
        """
        return heapq.heappop(self._free)

    def release(self, slot: int) -> None:
        """Give a slot back."""
        heapq.heappush(self._free, slot)

    def rows(
        self, ids: Tensor, *, slots: Sequence[int], starts: Sequence[int], before: Sequence[int]
    ) -> "CachedRows":
        """The context of a forward pass whose row i appends ids[i] to slots[i].

        Row i's first token has position starts[i], and before[i] is the token in front of it (any,
        at position 0); rows may start at different positions.
        """
        return CachedRows(self.store, ids, slots, starts, before)


class CachedRows:
    """A context that writes new keys and values into the cache and attends to the cached ones."""

    def __init__(
        self,
        store: Tensor,
        ids: Tensor,
        slots: Sequence[int],
        starts: Sequence[int],
        before: Sequence[int],
    ) -> None:
        width = ids.shape[1]
        self._store = store
        self._ids, self._before = ids, before
        self._slots = torch.tensor(slots, device=store.device)
        # Neighbouring slots are read as a view; anything else has to be gathered.
        neighbours = list(slots) == list(range(slots[0], slots[0] + len(slots)))
        self._rows = slice(slots[0], slots[-1] + 1) if neighbours else self._slots
        self._length = max(starts) + width
        offsets = torch.arange(width, device=store.device)
        self.positions = torch.tensor(starts, device=store.device)[:, None] + offsets
        self._places = torch.arange(self._length, device=store.device)
        self._masks: dict[int | None, Tensor] = {}

    @property
    def before(self) -> Tensor:
        """See `Context`; made when it is asked for, because most models do not."""
        first = torch.tensor(self._before, device=self._ids.device)[:, None]
        return torch.cat([first, self._ids[:, :-1]], dim=1)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> Tensor:
        """See `Context`."""
        keys, values = self._store[layer]
        keys[self._slots[:, None], :, self.positions] = k
        values[self._slots[:, None], :, self.positions] = v
        past = (self._rows, slice(None), slice(self._length))
        if window not in self._masks:
            self._masks[window] = visible(self.positions, self._places, window)
        return attention(q, keys[past], values[past], self._masks[window])
