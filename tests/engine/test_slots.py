import pytest

from tinybrain.engine.slots import Slots, common_prefix


@pytest.fixture
def slots():
    return Slots(3)


def leave(slots, *contents):
    """Leave slots one after another, with these tokens, of surprise 0, 1, 2 and so on."""
    held = [slots.acquire([tokens[0]]) for tokens in contents]
    for slot, tokens in zip(held, contents, strict=True):
        slot.extend(tokens[1:], [float(n) for n in range(1, len(tokens))])
        slots.release(slot)
    return held


def test_empty_slots_are_taken_from_the_lowest_on_and_none_twice(slots):
    assert [slots.acquire([n]).index for n in range(3)] == [0, 1, 2]
    assert slots.free == 0
    with pytest.raises(ValueError, match="empty"):
        slots.acquire([9])


def test_the_slot_left_longest_ago_is_lost_first(slots):
    first, second, third = leave(slots, [0, 0], [1, 1], [2, 2])
    slots.release(slots.acquire([0, 0, 5]))
    assert [slots.acquire([n]) for n in (7, 8, 9)] == [second, third, first]


def test_an_empty_slot_is_taken_before_any_is_lost(slots):
    leave(slots, [1, 2])
    discarded = slots.acquire([5])
    slots.discard(discarded)
    assert slots.acquire([6]) is discarded
    assert discarded.tokens == [6]


def test_a_conversation_goes_on_in_its_own_slot(slots):
    _, longest, _ = leave(slots, [1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 9, 9])
    slot = slots.acquire([1, 2, 3, 4, 5])
    assert slot is longest
    assert (slot.tokens, slot.nll) == ([1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0])


def test_a_slot_that_would_lose_its_end_is_left_alone(slots):
    [kept] = leave(slots, [1, 2, 3, 4])
    slot = slots.acquire([1, 2, 3, 5])
    assert slot is not kept
    assert slots.longest_prefix([1, 2, 3, 5], known=1) == (kept, 3)


def test_the_last_slot_keeps_what_it_has_in_common(slots):
    only, *_ = leave(slots, [1, 2, 3, 4], [8, 8], [9, 9])
    for n in (8, 9):
        slots.acquire([n, n, n])
    slot = slots.acquire([1, 2, 5])
    assert slot is only
    assert (slot.tokens, slot.nll) == ([1, 2], [0.0, 1.0])


def test_a_held_slot_is_known_too(slots):
    held = slots.acquire([1, 2, 3])
    held.extend([2, 3], [0.5, 0.5])
    assert slots.longest_prefix([1, 2, 4], known=1) == (held, 2)


def test_a_prefix_no_longer_than_known_is_none(slots):
    leave(slots, [1, 2, 3, 4], [1, 2, 9])
    assert slots.longest_prefix([1, 2, 3, 5], known=3) == (None, 3)
    assert slots.longest_prefix([1, 2, 3], known=3) == (None, 3)


def test_the_first_token_is_known_without_surprise(slots):
    slot = slots.acquire([4, 5])
    assert (slot.tokens, slot.nll) == ([4], [0.0])


@pytest.mark.parametrize(
    ("one", "other", "shared"), [([], [1], 0), ([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([2], [1], 0)]
)
def test_a_common_prefix_is_counted_from_the_first_token(one, other, shared):
    assert common_prefix(one, other) == common_prefix(other, one) == shared
