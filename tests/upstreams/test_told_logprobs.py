"""What an API tells of its log-probabilities is read exactly, or refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.chat import TokenLogprob
from tinybrain.errors import UpstreamError
from tinybrain.upstreams.told_logprobs import told_in


def entry(token, logprob, top=(), **more):
    top_logprobs = [{"token": text, "logprob": value} for text, value in top]
    return {"token": token, "logprob": logprob, "top_logprobs": top_logprobs} | more


def chunk(*entries, index=0):
    return json.dumps({"choices": [{"index": index, "logprobs": {"content": entries}}]})


def test_the_margin_is_between_the_two_likeliest_in_whatever_order_they_come():
    top = [("c", math.log(0.1)), ("a", math.log(0.6)), ("b", math.log(0.25))]
    (told,) = told_in(chunk(entry("a", math.log(0.6), top)))
    assert told.margin == pytest.approx(0.35)


@pytest.mark.parametrize("top", [[], [("a", -0.1)]])
def test_of_fewer_than_two_likeliest_there_is_no_margin(top):
    (told,) = told_in(chunk(entry("a", -0.1, top)))
    assert told.margin is None


def test_callers_are_told_as_many_of_the_likeliest_as_they_asked_for():
    (told,) = told_in(chunk(entry("b", -2.0, [("b", -2.0), ("a", -0.2)], bytes=[98])))
    assert told.with_top(0) == TokenLogprob(b"b", -2.0)
    assert told.with_top(1) == TokenLogprob(b"b", -2.0, ((b"a", -0.2),))


def test_bytes_win_over_a_text_that_cannot_hold_them():
    (told,) = told_in(chunk(entry("\N{REPLACEMENT CHARACTER}", -0.1, bytes=[0xE2, 0x82])))
    assert told.raw == b"\xe2\x82"


def test_what_rounding_put_over_certainty_is_certainty():
    (told,) = told_in(chunk(entry("a", 1e-6)))
    assert told.logprob == 0


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"choices": []}',
        '{"choices": [{"logprobs": null}]}',
        '{"choices": [{"logprobs": {"content": null}}]}',
        '{"choices": [{"logprobs": {"token_logprobs": [-0.1]}}]}',
        chunk(entry("a", -0.1), index=1),
    ],
)
def test_what_is_not_told_is_nothing(data):
    assert told_in(data) == []


@pytest.mark.parametrize(
    "bad",
    [
        entry("a", 0.7),
        entry("a", None),
        entry("a", math.nan),
        entry("a", -math.inf),
        entry("a", "likely"),
        entry(None, -0.1),
        entry("a", -0.1, [("a", 0.0), ("b", 0.0)]),
        entry("a", -0.1, [("a", math.nan)]),
        entry("a", -0.1, bytes=[256]),
        entry("a", -0.1, bytes="a"),
        {"logprob": -0.1},
        "a",
    ],
)
def test_figures_that_cannot_be_are_refused(bad):
    with pytest.raises(UpstreamError, match="no log-probabilities"):
        told_in(chunk(bad))


@given(st.text())
def test_no_data_raises_anything_but_an_upstream_error(data):
    try:
        told_in(data)
    except UpstreamError:
        return
    assert json.loads(data) is not None
