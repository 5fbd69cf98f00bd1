from hypothesis import given
from hypothesis import strategies as st

from tinybrain.engine.drafts import FIRST, LONGEST, REST, Drafts

TEXT = [1, 2, 3, 4, 5, 6, 7, 8, 9] * 3


def found_naively(tokens, most):
    for length in (3, 2):
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == tokens[-length:]:
                follows = tokens[start + length :]
                return [follows[at % len(follows)] for at in range(most)]
    return []


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, FIRST))
def test_what_followed_the_latest_occurrence_of_the_longest_ending_is_proposed(tokens, most):
    assert Drafts(tokens).propose(most) == found_naively(tokens, most)


def test_what_reaches_the_end_is_taken_to_repeat_itself():
    assert Drafts([7, 1, 2, 1, 2]).propose(4) == [1, 2, 1, 2]


def test_a_sequence_that_is_new_has_no_drafts():
    assert Drafts(range(50)).propose(4) == []


def test_what_comes_true_makes_proposals_longer():
    drafts, lengths = Drafts(TEXT), []
    for _ in range(4):
        proposed = drafts.propose(100)
        lengths.append(len(proposed))
        for token in proposed:
            drafts.push(token)
    assert lengths == [FIRST, 2 * FIRST, LONGEST, LONGEST]


def test_what_comes_true_in_part_makes_them_shorter():
    drafts = Drafts(TEXT)
    drafts.propose(100)
    for token in (1, 2, 0, *TEXT):
        drafts.push(token)
    assert len(drafts.propose(100)) == (FIRST + 2) // 2


def test_after_many_wrong_ones_nothing_is_proposed_for_a_while():
    drafts, lengths = Drafts(TEXT), []
    for wrong in (-1, -2, -3):
        lengths.append(len(drafts.propose(100)))
        for token in (wrong, *TEXT[: REST - 1]):
            drafts.push(token)
    assert lengths == [4, 2, 1]
    assert drafts.propose(100) == []
    drafts.push(TEXT[REST - 1])
    assert drafts.propose(100) == TEXT[REST : REST + 1]
