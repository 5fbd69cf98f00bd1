"""How a continuation is asked for, and how what comes is joined to what was shown."""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tinybrain.chat import Message
from tinybrain.routing.continuation import (
    LONGEST_WORD,
    Seam,
    continuation_messages,
    splits_word,
)


def joined(shown, *pieces):
    """The whole answer."""
    seam = Seam(shown)
    return shown + "".join(seam.feed(piece) for piece in pieces) + seam.close()


def test_the_larger_model_sees_its_words_so_far_and_is_asked_last():
    question = [Message("system", "Be brief."), Message("user", "Why?")]
    *before, said, asked = continuation_messages(question, "Because")
    assert before == question
    assert said == Message("assistant", "Because")
    assert asked.role == "user"


# --- what the larger model says again


@pytest.mark.parametrize(
    ("shown", "continuation", "whole"),
    [
        ("The sky is", "The sky is blue.", "The sky is blue."),
        ("The sky is", "the  SKY\nis blue.", "The sky is blue."),
        ("The sky is", "...the sky is blue.", "The sky is blue."),
        ("The sky over us is", "is blue.", "The sky over us is blue."),
        ("The sky over us is", "over us is blue.", "The sky over us is blue."),
        ("Red, green,", "Red, green, blue", "Red, green, blue"),
        ("Red, green,", "green, blue", "Red, green, blue"),
        ("Hello there. I am", "Hello there! I am here.", "Hello there. I am here."),
        ("2 + 2 =", "2 + 2 = 4", "2 + 2 = 4"),
        ("Il a dit", "il a dit oui", "Il a dit oui"),
        ("\u6211\u559c\u6b22", "\u6211\u559c\u6b22\u82f9\u679c", "\u6211\u559c\u6b22\u82f9\u679c"),
        ("The sky is blue.", "The sky is blue. The sea too.", "The sky is blue. The sea too."),
    ],
)
def test_an_echo_is_left_out(shown, continuation, whole):
    assert joined(shown, continuation) == joined(shown, *continuation) == whole


@pytest.mark.parametrize(
    ("shown", "continuation", "whole"),
    [
        ("It is a", "amazing", "It is a amazing"),  # a word that only begins so
        ("I saw you.", "You were kind.", "I saw you. You were kind."),
        ("I went to New York.", "New York is big.", "I went to New York. New York is big."),
        ("Series: 1, 1", "1, 2", "Series: 1, 1 1, 2"),
        ("Is it red or blue? It is", "blue.", "Is it red or blue? It is blue."),
        ("I like pears.", "I like plums.", "I like pears. I like plums."),
    ],
)
def test_words_that_come_again_for_their_own_sake_stay(shown, continuation, whole):
    assert joined(shown, continuation) == joined(shown, *continuation) == whole


@pytest.mark.parametrize(
    ("shown", "continuation"),
    [
        ("The capital of France is a", "The capital of France is Paris."),
        ("Hello. The capital of France is a", "The capital of France? Paris."),
    ],
)
def test_a_sentence_begun_anew_is_told_and_not_shown(shown, continuation):
    seam = Seam(shown)
    assert "".join(map(seam.feed, continuation)) + seam.close() == ""
    assert seam.restarts


# --- what stands between


@pytest.mark.parametrize(
    ("shown", "continuation", "whole"),
    [
        ("The sky is", "blue", "The sky is blue"),
        ("The sky is", " blue", "The sky is blue"),
        ("The sky is", "\nblue", "The sky is blue"),
        ("The sky is ", "\nblue", "The sky is blue"),
        ("The sky is", "... blue", "The sky is blue"),
        ("The sky is", "\u2026blue", "The sky is blue"),
        ("The sky is ", " blue", "The sky is blue"),
        ("The sky is blue", ", too", "The sky is blue, too"),
        ("The sky is blue", ".", "The sky is blue."),
        ("The sky is blue", "'s hue", "The sky is blue's hue"),
        ("The sky (that is", "blue) is", "The sky (that is blue) is"),
        ("The sky (", "that", "The sky (that"),
        ('He said "', 'yes" and', 'He said "yes" and'),
        ('He said "yes', '" and', 'He said "yes" and'),
        ("He said", '"yes"', 'He said "yes"'),
        ("It is", "**blue**", "It is **blue**"),
        ("It is blue.", "\n\nThe sea", "It is blue.\n\nThe sea"),
        ("- red", "\n- blue", "- red\n- blue"),
        ("1. red", "\n2. blue", "1. red\n2. blue"),
        ("# Weather", "\n\nThe sky", "# Weather\n\nThe sky"),
        ("# Weather", "\nThe sky", "# Weather\nThe sky"),
        ("# Weather", "# Weather\n\nThe sky", "# Weather\n\nThe sky"),
        ("# Weather\n", "\nThe sky", "# Weather\n\nThe sky"),
        ("Weather", "\n\nThe sky", "Weather\n\nThe sky"),
        ("Roses are red,\nViolets are blue,", "\nSugar is", None),
        ("```python\nx = 1", "\ny = 2", None),
        ("def f(x):\n", "    return x", None),
        ("int x = 1;", "\nint y", None),
        ("> said", "\nmore", None),
        ("The sky is\n", " blue", "The sky is\nblue"),
        ("\u6211\u559c", "\u6b22", "\u6211\u559c\u6b22"),
        ("", " blue", "blue"),
    ],
)
def test_spaces_and_line_breaks_at_the_seam_are_right(shown, continuation, whole):
    whole = whole or shown + continuation
    assert joined(shown, continuation) == joined(shown, *continuation) == whole


# --- streaming


def test_a_word_that_was_not_shown_before_is_passed_on_at_once():
    seam = Seam("The sky is")
    assert seam.feed("b") == " b"
    assert seam.feed("lue\n...") == "lue\n..."


def test_what_may_be_an_echo_is_held_back_only_as_long_as_it_may():
    seam = Seam("The sky over us is")
    assert [seam.feed(piece) for piece in ("over", " u", "nder")] == ["", "", " over under"]


def test_without_a_word_the_wait_has_an_end():
    seam = Seam("Look:")
    assert seam.feed("=" * 41) == "=" * 41


WORDS = st.lists(st.sampled_from(["the", "sky", "is", "Blue", "a", "12", "us,", "so."]), max_size=9)
NEW = st.lists(st.sampled_from(["xy", "Zu", "x,", "zu."]), min_size=1, max_size=5)
TEXT = st.text('aA1 .,\n"\u6211-', max_size=30)


@given(WORDS, TEXT | WORDS.map(" ".join), st.lists(st.integers(0, 40), max_size=5))
@example(["12"], "12 12", [2])
def test_it_does_not_matter_how_the_continuation_is_cut(shown, continuation, cuts):
    shown = " ".join(shown)
    ends = sorted({0, *cuts, len(continuation)})
    pieces = [continuation[start:end] for start, end in pairwise(ends)]
    assert joined(shown, *pieces) == joined(shown, continuation)


@given(WORDS, NEW, st.sampled_from(["", " ", "\n", "...", "\u2026 "]))
def test_new_words_come_through_whole_and_once(shown, new, lead):
    shown, new = " ".join(shown), " ".join(new)
    whole = joined(shown, *(lead + new))
    assert whole.startswith(shown)
    assert whole.endswith(new)
    assert not whole[len(shown) : -len(new)].strip()


@given(WORDS.filter(bool), NEW, st.data())
def test_an_echo_of_any_end_makes_no_difference(shown, new, data):
    start = data.draw(st.integers(0, len(shown) - 1))
    echo = shown[start:]
    assume(echo != ["12"])
    shown, new = " ".join(shown), " ".join(new)
    again = " ".join(echo).upper()
    assert joined(shown, *f"{again} {new}") == joined(shown, f" {new}")


# --- words


@pytest.mark.parametrize(
    ("before", "after", "inside"),
    [
        ("Par", "is", True),
        ("Paris", " is", False),
        ("Paris", ".", False),
        ("Paris ", "is", False),
        ("Paris", "", True),  # who knows
        ("Paris.", "", False),
        ("don", "'t", True),
        ("don't", " go", False),
        ("well-", "known", True),
        ("3.", "14", True),
        ("It is 3.", " So", False),
        ("\u6211", "\u559c", False),
        ("", "a", False),
        ("a" * LONGEST_WORD, "a", False),
    ],
)
def test_a_cut_inside_a_word_is_told(before, after, inside):
    assert splits_word(before, after) is inside
