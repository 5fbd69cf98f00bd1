"""Attention of one query a row over cached keys and values, in Triton: no copy, no mask.

Each program reads one part of what one head of one row sees; where there are several parts, a
second kernel joins them (flash decoding, Dao et al. 2023). Imported only where there is a GPU:
Triton comes with torch's CUDA packages, not with the others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tinybrain.engine.decode_rows import DecodeRows

BLOCK = 64
"""Positions read at once."""

PROGRAMS_PER_PROCESSOR = 2
"""With fewer, some of the memory's bandwidth is left; more parts cost more to join."""


@triton.jit
def _attend(
    q,
    k,
    v,
    keys,
    values,
    slots,
    positions,
    y,
    maxima,
    totals,
    q_stride,
    k_stride,
    v_stride,
    slot_stride,
    head_stride,
    group,
    part_length,
    window,
    scale,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Put k and v in their places, and attend from q to one part of what is there.

    With one part (`WHOLE`) y is the result [B, H, SIZE]; else the part's sums [B, H, parts, SIZE],
    not divided by `totals` [B, H, parts] of exponentials relative to `maxima`.
    """
    row, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads, parts = tl.num_programs(1), tl.num_programs(2)
    kv_head = head // group
    position = tl.load(positions + row).to(tl.int32)
    place = tl.load(slots + row) * slot_stride + kv_head * head_stride
    channels = tl.arange(0, SIZE)
    query = tl.load(q + row * q_stride + head * SIZE + channels).to(tl.float32) * scale
    begin = tl.maximum(part * part_length, position - window)
    end = tl.minimum((part + 1) * part_length, position)
    largest = -float("inf")
    total = 0.0
    sums = tl.zeros((SIZE,), dtype=tl.float32)
    for first in range(begin, end, BLOCK):
        seen = first + tl.arange(0, BLOCK)
        inside = seen < end
        offsets = place + seen[:, None] * SIZE + channels[None, :]
        key = tl.load(keys + offsets, mask=inside[:, None], other=0.0).to(tl.float32)
        value = tl.load(values + offsets, mask=inside[:, None], other=0.0).to(tl.float32)
        scores = tl.where(inside, tl.sum(key * query[None, :], 1), -float("inf"))
        higher = tl.maximum(largest, tl.max(scores, 0))
        kept = tl.exp(largest - higher)
        weights = tl.exp(scores - higher)
        total = total * kept + tl.sum(weights, 0)
        sums = sums * kept + tl.sum(weights[:, None] * value, 0)
        largest = higher
    if position // part_length == part:
        # The new token's own; rounded as those in the cache are.
        key = tl.load(k + row * k_stride + kv_head * SIZE + channels).to(keys.dtype.element_ty)
        value = tl.load(v + row * v_stride + kv_head * SIZE + channels).to(values.dtype.element_ty)
        if head % group == 0:
            tl.store(keys + place + position * SIZE + channels, key)
            tl.store(values + place + position * SIZE + channels, value)
        score = tl.sum(key.to(tl.float32) * query, 0)
        higher = tl.maximum(largest, score)
        kept = tl.exp(largest - higher)
        weight = tl.exp(score - higher)
        total = total * kept + weight
        sums = sums * kept + weight * value.to(tl.float32)
        largest = higher
    at = (row * heads + head) * parts + part
    if WHOLE:
        tl.store(y + at * SIZE + channels, sums / total)
    else:
        tl.store(maxima + at, largest)
        tl.store(totals + at, total)
        tl.store(y + at * SIZE + channels, sums)


@triton.jit
def _join(
    sums,
    maxima,
    totals,
    y,
    parts,
    SIZE: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The result y [B, H, SIZE] of parts, whose number `PARTS` exceeds or equals."""
    head = tl.program_id(0)
    part, channels = tl.arange(0, PARTS), tl.arange(0, SIZE)
    at, inside = head * parts + part, part < parts
    largest = tl.load(maxima + at, mask=inside, other=-float("inf"))
    weights = tl.exp(largest - tl.max(largest, 0))
    total = tl.sum(weights * tl.load(totals + at, mask=inside, other=0.0), 0)
    offsets = at[:, None] * SIZE + channels[None, :]
    parted = tl.load(sums + offsets, mask=inside[:, None], other=0.0)
    tl.store(y + head * SIZE + channels, tl.sum(parted * weights[:, None], 0) / total)


class TritonRows(DecodeRows):
    """`DecodeRows` for heads whose size is a power of two."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> Tensor:
        """See `Context`."""
        keys, values = self._store[layer]
        rows, _, heads, size = q.shape
        parts = self._parts(rows * heads, q.device)
        y = torch.empty((rows, heads, parts, size), device=q.device)
        maxima, totals = torch.empty((2, rows, heads, parts), device=q.device)
        q, k, v = (_with_heads_in_turn(x) for x in (q, k, v))
        _attend[(rows, heads, parts)](
            *(q, k, v, keys, values, self._slots, self.positions, y, maxima, totals),
            *(q.stride(0), k.stride(0), v.stride(0), keys.stride(0), keys.stride(1)),
            heads // k.shape[2],
            -(-self._length // parts),
            self._length if window is None else window,
            size**-0.5,
            SIZE=size,
            BLOCK=BLOCK,
            WHOLE=parts == 1,
        )
        if parts == 1:
            return y.view(rows, 1, heads, size)
        joined = torch.empty((rows, 1, heads, size), device=q.device)
        _join[(rows * heads,)](
            *(y, maxima, totals, joined, parts),
            SIZE=size,
            PARTS=1 << (parts - 1).bit_length(),
        )
        return joined

    def _parts(self, programs: int, device: torch.device) -> int:
        """Into how many parts what a head sees is divided, so that all processors have work."""
        if device.type != "cuda":  # Triton's interpreter
            processors = 64
        else:
            processors = torch.cuda.get_device_properties(device).multi_processor_count
        wanted = PROGRAMS_PER_PROCESSOR * processors // programs
        return max(1, min(wanted, self._length // BLOCK))


def _with_heads_in_turn(x: Tensor) -> Tensor:
    return x if x.stride()[-2:] == (x.shape[-1], 1) else x.contiguous()
