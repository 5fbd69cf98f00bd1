"""The decoder gives the same events however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.errors import UpstreamError
from tinybrain.upstreams.sse import SseDecoder

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
EVENTS = st.lists(st.lists(LINE, min_size=1, max_size=3).map("\n".join), max_size=6)


def decode(chunks, **bounds):
    decoder = SseDecoder(**bounds)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + list(decoder.close())


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 500)))
def test_any_chunking_of_a_stream_gives_its_events(events, end, places):
    stream = "".join(
        f": note{end}" + "".join(f"data: {line}{end}" for line in event.split("\n")) + end
        for event in events
    )
    assert decode(cut(stream.encode(), places)) == events


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_garbage_is_decoded_the_same_however_it_is_cut(data, places):
    assert decode(cut(data, places)) == decode([data])


def test_an_event_is_given_as_soon_as_its_empty_line_is_there():
    decoder = SseDecoder()
    assert list(decoder.feed(b"data: 1\n\ndata: 2\n")) == ["1"]
    assert list(decoder.feed(b"\n")) == ["2"]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data:tight\n\n", ["tight"]),
        (b"data:  wide\n\n", [" wide"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
        (b"data\ndata\n\n", ["\n"]),
        (b": only a comment\n\n\n\n", []),
        (b"\xef\xbb\xbfdata: after a BOM\n\n", ["after a BOM"]),
        (b"data: [DONE]", ["[DONE]"]),
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"", []),
    ],
)
def test_fields_follow_the_event_stream_format(stream, events):
    assert decode([stream]) == events


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_line_over_the_bound_is_refused_before_it_has_ended(size):
    decoder = SseDecoder(max_line_bytes=100)
    with pytest.raises(UpstreamError, match="100 bytes"):
        _ = [list(decoder.feed(b"x" * size)) for _ in range(0, 200, size)]


def test_a_line_over_the_bound_is_refused_when_it_comes_whole():
    with pytest.raises(UpstreamError):
        decode([b"data: " + b"x" * 200 + b"\n\n"], max_line_bytes=100)
