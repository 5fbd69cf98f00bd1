import pytest
import torch

from tinybrain.engine.attention import WholeSequence
from tinybrain.engine.kv_cache import KVCache


@pytest.fixture
def cache(golden_model):
    device = torch.device("cpu")
    return KVCache(golden_model.config, 4, dtype=torch.float32, device=device)


def prefill(model, cache, slot, ids):
    return model(ids[None], cache.rows([slot], [0], len(ids)))[0]


@pytest.mark.parametrize("slots", [[0, 1, 2], [0, 2, 3], [3, 0, 1]])
def test_rows_of_different_lengths_decode_as_each_would_alone(golden_model, golden, cache, slots):
    ids = golden["ids"].long()
    lengths = [150, 3, 77]
    for slot, length in zip(slots, lengths, strict=True):
        prefill(golden_model, cache, slot, ids[:length])
    together = golden_model(ids[lengths][:, None], cache.rows(slots, lengths, width=1))[:, 0]
    for row, length in zip(together, lengths, strict=True):
        whole = ids[None, : length + 1]
        alone = golden_model(whole, WholeSequence(whole))[0, -1]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=0)


def test_a_prompt_may_be_read_in_pieces(golden_model, golden, cache):
    ids = golden["ids"].long()
    whole = prefill(golden_model, cache, 0, ids)
    prefill(golden_model, cache, 1, ids[:120])
    rest = golden_model(ids[None, 120:], cache.rows([1], [120], width=80))[0]
    torch.testing.assert_close(rest, whole[120:], atol=1e-4, rtol=0)


def test_a_reused_slot_shows_nothing_of_its_former_owner(golden_model, golden, cache):
    ids = golden["ids"].long()
    fresh = prefill(golden_model, cache, 0, ids[:20])
    prefill(golden_model, cache, 1, ids.flip(0))
    assert torch.equal(prefill(golden_model, cache, 1, ids[:20]), fresh)


def test_the_lowest_free_slot_is_taken_and_none_twice(cache):
    assert [cache.allocate() for _ in range(4)] == [0, 1, 2, 3]
    cache.release(2)
    cache.release(1)
    assert (cache.free_slots, cache.allocate(), cache.free_slots) == (2, 1, 1)
    cache.allocate()
    with pytest.raises(IndexError):
        cache.allocate()
