"""Reasoning between tags is told from the answer, wherever a tag is cut."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.chat import Text, Thought
from tinybrain.upstreams.think import ThinkSplitter


def split(pieces):
    splitter = ThinkSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + list(splitter.close())


def joined(events):
    return [(kind, "".join(e.text for e in run)) for kind, run in groupby(events, type)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [Text("plain")]),
        ("<think>why</think>so", [Thought("why"), Text("so")]),
        ("a<think>b</think>c<think>d</think>", [Text("a"), Thought("b"), Text("c"), Thought("d")]),
        ("<think>never closed", [Thought("never closed")]),
        ("<think></think>x", [Text("x")]),
        ("1 < 2 <thin", [Text("1 < 2 "), Text("<thin")]),
        ("", []),
    ],
)
def test_tags_part_reasoning_from_answer(text, expected):
    assert split([text]) == expected


@given(st.lists(st.sampled_from(["<think>", "</think>", "<thi", "nk>", "<", "/", "a", "</t"])))
def test_any_chunking_gives_the_same_reasoning_and_answer(parts):
    text = "".join(parts)
    whole = joined(split([text]))
    assert joined(split(parts)) == whole
    assert joined(split(text)) == whole


def test_text_that_cannot_become_a_tag_is_not_held_back():
    assert list(ThinkSplitter().feed("a < b")) == [Text("a < b")]
