"""Keys and values of the requests: one preallocated slot of `sequence_len` positions for each.

Knows nothing of requests, nor how much of a slot is filled: whoever holds one remembers.
"""

import math
import mmap
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tinybrain.engine.attention import Context, attention, visible
from tinybrain.engine.gpt import GPTConfig
from tinybrain.engine.native import LANES, Library, library

GROUP = 4
"""Queries attended to at once when tokens are decoded on a CPU; they take no longer than one."""

DECODE_WIDTH = 16
"""Up to so many tokens a row are decoded, more are a prompt's."""

BLOCK = 16
"""Positions that are read together when tokens are decoded on a CPU."""


class KVCache:
    """A store [layers, 2, slots, kv heads, sequence_len, head_dim]."""

    def __init__(
        self, config: GPTConfig, slots: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.n_layer, 2, slots, config.n_kv_head, config.sequence_len, config.head_dim)
        # Zeros, not empty: a masked position has weight 0, and 0 times a stray NaN is NaN.
        self.store = zeros(shape, dtype=dtype, device=device)
        native = device.type == "cpu" and dtype == torch.float16 and config.head_dim % LANES == 0
        self._native = library() if native else None

    def rows(
        self, ids: Tensor, *, slots: Sequence[int], starts: Sequence[int], before: Sequence[int]
    ) -> Context:
        """The context of a forward pass whose row i appends ids[i] to slots[i].

        Row i's first token has position starts[i], and before[i] is the token in front of it (any,
        at position 0); rows may start at different positions.
        """
        if self._native:
            return NativeRows(self._native, self.store, ids, slots, starts, before)
        return CachedRows(self.store, ids, slots, starts, before)

    def copy(self, positions: slice, *, source: int, target: int) -> None:
        """Copy the keys and values at some positions from one slot to another."""
        self.store[:, :, target, :, positions] = self.store[:, :, source, :, positions]

    def clear(self, slot: int) -> None:
        """Make a slot all zeros, whatever was in it."""
        self.store[:, :, slot] = 0


class _Rows:
    """Where the tokens ids [B, T] stand, and what is in front of each."""

    def __init__(self, ids: Tensor, starts: Sequence[int], before: Sequence[int]) -> None:
        self._ids, self._before = ids, before
        offsets = torch.arange(ids.shape[1], device=ids.device)
        self.positions = torch.tensor(starts, device=ids.device)[:, None] + offsets

    @property
    def before(self) -> Tensor:
        """See `Context`; made when it is asked for, because most models do not."""
        first = torch.tensor(self._before, device=self._ids.device)[:, None]
        return torch.cat([first, self._ids[:, :-1]], dim=1)


class NativeRows(_Rows):
    """A context as `CachedRows`, computed by the engine's own kernels."""

    def __init__(
        self,
        native: Library,
        store: Tensor,
        ids: Tensor,
        slots: Sequence[int],
        starts: Sequence[int],
        before: Sequence[int],
    ) -> None:
        super().__init__(ids, starts, before)
        if max(starts) + ids.shape[1] > store.shape[-2] or max(slots) >= store.shape[2]:
            raise IndexError("The cache has no such slot or position.")  # C code would not ask
        self._native, self._store = native, store
        self._slots = torch.tensor(slots)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> Tensor:
        """See `Context`."""
        return self._native.attend(
            *(q, k, v),
            cache=self._store[layer],
            slots=self._slots,
            positions=self.positions,
            window=window,
        )


class CachedRows(_Rows):
    """A context that writes new keys and values into the cache and attends to the cached ones."""

    def __init__(
        self,
        store: Tensor,
        ids: Tensor,
        slots: Sequence[int],
        starts: Sequence[int],
        before: Sequence[int],
    ) -> None:
        super().__init__(ids, starts, before)
        width = ids.shape[1]
        self._store = store
        self._slots = torch.tensor(slots, device=store.device)
        # A CPU rounds a query's sums alike only in products of the same shape. So that a token
        # depends neither on drafts nor on neighbours, those decoded are attended to in groups of
        # the same size, over lengths that are rounded up.
        grouped = store.device.type == "cpu" and width <= DECODE_WIDTH
        self._group, block = (GROUP, BLOCK) if grouped else (width, 1)
        ends = [
            start + min(end, width)
            for start in starts
            for end in range(self._group, width + self._group, self._group)
        ]
        lengths = [min(-(-end // block) * block, store.shape[-2]) for end in ends]
        groups = len(ends) // len(starts)
        self._parts = _parts([s for s in slots for _ in range(groups)], lengths, store.device)
        self._places = torch.arange(max(lengths), device=store.device)
        self._masks: dict[int | None, Tensor] = {}

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> Tensor:
        """See `Context`."""
        keys, values = self._store[layer]
        keys[self._slots[:, None], :, self.positions] = k.to(keys.dtype)
        values[self._slots[:, None], :, self.positions] = v.to(values.dtype)
        queries = self._grouped(q)
        attended = [
            attention(queries[rows], keys[slots, :, seen], values[slots, :, seen], mask)
            for rows, slots, seen, mask in self._looks(window)
        ]
        y = attended[0] if len(attended) == 1 else torch.cat(attended)
        return y.reshape(len(q), -1, *q.shape[2:])[:, : q.shape[1]]

    def _grouped(self, x: Tensor) -> Tensor:
        """Rows [B, T, ...] as groups [B * groups, group, ...], the last of a row filled up."""
        fill = -x.shape[1] % self._group
        if fill:
            x = torch.cat([x, x[:, -1:].expand(-1, fill, *x.shape[2:])], dim=1)
        return x.reshape(-1, self._group, *x.shape[2:])

    def _looks(
        self, window: int | None
    ) -> Iterator[tuple[slice, slice | Tensor, slice, Tensor | None]]:
        """Rows to attend at once, their slots, the positions to read there, and a mask of these."""
        for rows, slots, length in self._parts:
            yield rows, slots, slice(length), self._mask(window)[rows, ..., :length]

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            queries = self._grouped(self.positions)
            self._masks[window] = visible(queries, self._places, window)
        return self._masks[window]


def _parts(
    slots: Sequence[int], lengths: Sequence[int], device: torch.device
) -> list[tuple[slice, slice | Tensor, int]]:
    """The rows to attend at once, their slots, and how many positions of these to read."""
    if device.type == "cpu":
        # Masked positions would be read for nothing, and scattered slots would have to be gathered.
        return [
            (slice(row, row + 1), slice(slot, slot + 1), length)
            for row, (slot, length) in enumerate(zip(slots, lengths, strict=True))
        ]
    everything, longest = slice(0, len(slots)), max(lengths)
    if list(slots) == list(range(slots[0], slots[0] + len(slots))):
        return [(everything, slice(slots[0], slots[-1] + 1), longest)]
    return [(everything, torch.tensor(slots, device=device), longest)]


def zeros(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that on a CPU take no memory until they are written; torch's own do."""
    if device.type != "cpu":
        return torch.zeros(*shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, access=mmap.ACCESS_COPY)
    return torch.frombuffer(pages, dtype=dtype).view(*shape)
