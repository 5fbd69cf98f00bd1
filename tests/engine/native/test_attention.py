"""The attention of native/attention.c, and the cache that calls it, beside torch's."""

from itertools import accumulate

import pytest
import torch

from tinybrain.engine.gpt import GPTConfig
from tinybrain.engine.kv_cache import CachedRows, KVCache, NativeRows
from tinybrain.engine.native import library

pytestmark = [
    pytest.mark.usefixtures("several_threads"),
    pytest.mark.skipif(library() is None, reason="no compiled kernels for this CPU"),
]

LENGTH = 100
SIZES = [(2, 1, 32), (4, 2, 64), (3, 3, 128), (2, 2, 80)]


class Attending:
    """A cache of one layer, and random queries, keys and values for every position."""

    def __init__(self, heads, kv_heads, size):
        config = GPTConfig(LENGTH, 8, 1, heads, kv_heads, heads * size)
        self.cache = KVCache(config, 3, dtype=torch.float16, device=torch.device("cpu"))
        self.parts = (heads, kv_heads, kv_heads)
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randn(3, LENGTH, sum(self.parts), size, generator=generator)

    def rows(self, kind, slots, starts, width):
        ids = torch.zeros(len(slots), width, dtype=torch.long)
        if kind is NativeRows:
            return NativeRows(library(), self.cache.store, ids, slots, starts, [0] * len(slots))
        return CachedRows(self.cache.store, ids, slots, starts, [0] * len(slots))

    def __call__(self, kind, slots, starts, width, window=None):
        tokens = torch.stack(
            [self.tokens[s, at : at + width] for s, at in zip(slots, starts, strict=True)]
        )
        q, k, v = tokens.split(self.parts, dim=2)
        return self.rows(kind, slots, starts, width).attend(0, q, k, v, window=window)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [None, 0, 7, 40])
@pytest.mark.parametrize("width", [1, 5, 30])
def test_it_attends_as_torch_does(size, window, width):
    attending = Attending(*size)
    for start in range(0, 60, 20):  # what is in front
        attending(CachedRows, [0, 2], [start, start], 20)
    expected = attending(CachedRows, [2, 0], [40, 60], width, window)
    stored = attending.cache.store.clone()
    found = attending(NativeRows, [2, 0], [40, 60], width, window)
    torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)
    assert attending.cache.store.equal(stored)


@pytest.mark.parametrize("window", [None, 7])
def test_not_a_bit_depends_on_what_is_attended_to_beside_it(window):
    attending = Attending(4, 2, 64)
    whole = attending(NativeRows, [0], [0], LENGTH, window)[0]
    for widths in ([1] * LENGTH, [3] * 33 + [1], [64, 7, 29]):
        starts = list(accumulate(widths, initial=0))
        pieces = [
            attending(NativeRows, [0, 1], [start, LENGTH - width], width, window)[0]
            for start, width in zip(starts, widths, strict=False)
        ]
        assert torch.cat(pieces).equal(whole)


def test_what_a_longer_row_left_behind_is_not_seen():
    attending = Attending(2, 1, 32)
    expected = attending(NativeRows, [0], [0], 20)
    attending.cache.store[:, :, 0, :, 20:] = 100
    assert attending(NativeRows, [0], [0], 20).equal(expected)


def test_a_cache_of_16_bits_on_a_cpu_uses_it():
    attending = Attending(2, 1, 32)
    rows = attending.cache.rows(torch.zeros(1, 1), slots=[0], starts=[0], before=[0])
    assert isinstance(rows, NativeRows)


def test_a_position_behind_the_end_is_refused():
    with pytest.raises(IndexError):
        Attending(2, 1, 32)(NativeRows, [0], [LENGTH - 2], 3)
