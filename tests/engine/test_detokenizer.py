from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tinybrain.engine.detokenizer import Detokenizer

TEXTS = st.text(alphabet="aé日🙂👩‍👩‍👧", max_size=20).map(str.encode) | st.binary(max_size=30)


def split(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def run(pieces, stop=()):
    detokenizer = Detokenizer(stop)
    texts = [detokenizer.push(piece) for piece in pieces]
    return [*texts, detokenizer.finish()], detokenizer.stopped


@given(TEXTS, st.lists(st.integers(0, 99)))
def test_any_split_gives_the_text_of_the_whole(data, cuts):
    assert "".join(run(split(data, cuts))[0]) == data.decode(errors="replace")


@given(st.text(alphabet="aé日🙂", max_size=20), st.lists(st.integers(0, 99)))
def test_no_piece_of_valid_text_holds_a_broken_character(text, cuts):
    assert not any("\ufffd" in piece for piece in run(split(text.encode(), cuts))[0])


@given(st.text("ab", max_size=20), st.lists(st.text("ab", max_size=4), max_size=3), st.data())
def test_stop_strings_are_found_the_same_however_the_text_is_split(text, stop, data):
    cuts = data.draw(st.lists(st.integers(0, 99)))
    whole, stopped = run([text.encode()], stop)
    pieces, stopped_in_pieces = run(split(text.encode(), cuts), stop)
    assert "".join(pieces) == "".join(whole)
    assert stopped == stopped_in_pieces == any(s and s in text for s in stop)
    assert text.startswith("".join(whole))
    assert not any(s and s in "".join(whole) for s in stop)


def test_text_that_may_become_a_stop_string_is_held_back_until_it_cannot():
    detokenizer = Detokenizer(["\n\nUser:"])
    assert [detokenizer.push(b) for b in (b"Hi\n", b"\nUs", b"ing", b" it\n\nUser", b": x")] == [
        "Hi",
        "",
        "\n\nUsing",
        " it",
        "",
    ]
    assert detokenizer.stopped
    assert detokenizer.push(b"more") == detokenizer.finish() == ""


def test_what_is_held_comes_out_at_the_end():
    detokenizer = Detokenizer(["END"])
    assert detokenizer.push(b"the EN") == "the "
    assert detokenizer.finish() == "EN"


def test_a_character_never_completed_becomes_one_replacement_at_the_end():
    detokenizer = Detokenizer()
    assert detokenizer.push("日".encode()[:2]) == ""
    assert detokenizer.finish() == "\ufffd"


def test_bytes_that_nothing_can_complete_are_replaced_at_once():
    assert Detokenizer().push(b"a\xffb") == "a\ufffdb"


def test_it_counts_the_characters_given_out_and_those_held_back():
    detokenizer = Detokenizer(["END"])
    counts = []
    for piece in (b"a", "日".encode()[:2], "日".encode()[2:], b"EN", b"x", b"yEND"):
        detokenizer.push(piece)
        counts.append((detokenizer.given, detokenizer.decoded))
    assert counts == [(1, 1), (1, 1), (2, 2), (2, 4), (5, 5), (6, 6)]


def test_what_comes_out_at_the_end_is_counted_as_given():
    detokenizer = Detokenizer(["END"])
    detokenizer.push(b"E" + "日".encode()[:1])
    assert (detokenizer.given, len(detokenizer.finish()), detokenizer.given) == (0, 2, 2)
