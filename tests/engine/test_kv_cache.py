import pytest
import torch


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


def test_the_lowest_free_slot_is_taken_and_none_twice(cache):
    assert [cache.allocate() for _ in range(4)] == [0, 1, 2, 3]
    cache.release(2)
    cache.release(1)
    assert (cache.free_slots, cache.allocate(), cache.free_slots) == (2, 1, 1)
    cache.allocate()
    with pytest.raises(IndexError):
        cache.allocate()
