import psutil
import pytest
import torch

from tinybrain.engine.kv_cache import zeros


@pytest.fixture
def cache(golden_model, new_cache):
    return new_cache(golden_model, slots=4)


def prefill(model, cache, slot, ids, *, start=0, before=0):
    context = cache.rows(ids[None], slots=[slot], starts=[start], before=[before])
    return model(ids[None], context)[0]


@pytest.mark.parametrize("slots", [[0, 1, 2], [0, 2, 3], [3, 0, 1]])
def test_rows_of_different_lengths_decode_as_each_would_alone(each, new_cache, slots):
    cache, ids, lengths = new_cache(each.model, slots=4), each.ids, [150, 3, 77]
    for slot, length in zip(slots, lengths, strict=True):
        prefill(each.model, cache, slot, ids[:length])
    rows, before = ids[lengths][:, None], [ids[length - 1].item() for length in lengths]
    context = cache.rows(rows, slots=slots, starts=lengths, before=before)
    together = each.model(rows, context)[:, 0]
    for row, length in zip(together, lengths, strict=True):
        alone = each.hidden(ids[: length + 1])[-1]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=0)


def test_a_prompt_may_be_read_in_pieces(each, new_cache):
    cache, ids = new_cache(each.model, slots=2), each.ids
    whole = prefill(each.model, cache, 0, ids)
    prefill(each.model, cache, 1, ids[:120])
    rest = prefill(each.model, cache, 1, ids[120:], start=120, before=ids[119].item())
    torch.testing.assert_close(rest, whole[120:], atol=1e-4, rtol=0)


def test_a_reused_slot_shows_nothing_of_its_former_owner(golden, cache):
    fresh = prefill(golden.model, cache, 0, golden.ids[:20])
    prefill(golden.model, cache, 1, golden.ids.flip(0))
    assert torch.equal(prefill(golden.model, cache, 1, golden.ids[:20]), fresh)


def test_a_copied_prefix_is_as_good_as_one_read_anew(each, new_cache):
    cache, ids = new_cache(each.model, slots=2), each.ids
    whole = prefill(each.model, cache, 1, ids)
    cache.clear(0)
    cache.copy(slice(0, 70), source=1, target=0)
    cache.copy(slice(70, 120), source=1, target=0)
    rest = prefill(each.model, cache, 0, ids[120:], start=120, before=ids[119].item())
    torch.testing.assert_close(rest, whole[120:], atol=1e-4, rtol=0)
    assert not cache.store[:, :, 0, :, 200:].any()


@pytest.mark.parametrize("slots", [[0, 1], [2, 0]])
def test_a_cleared_slot_spoils_nothing_that_is_read_beside_it(golden, cache, slots):
    cache.store[:, :, slots[0]] = torch.nan
    cache.clear(slots[0])
    prefill(golden.model, cache, slots[1], golden.ids)
    rows = golden.ids[:2, None]
    context = cache.rows(rows, slots=slots, starts=[0, 200], before=[0, 1])
    assert golden.model(rows, context).isfinite().all()


def test_a_cache_of_16_bits_serves_a_model_of_32(golden, new_cache):
    cache = new_cache(golden.model, slots=1, dtype=torch.bfloat16)
    hidden = prefill(golden.model, cache, 0, golden.ids)
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, golden.hidden(golden.ids), atol=0.05, rtol=0)


def test_zeros_take_no_memory_before_they_are_written():
    process = psutil.Process()
    before = process.memory_info().rss
    store = zeros((1 << 10, 1 << 18), dtype=torch.bfloat16, device=torch.device("cpu"))
    store[5] = 1
    assert store[:10].sum() == 1 << 18
    assert process.memory_info().rss - before < 1 << 26
