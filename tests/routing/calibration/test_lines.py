"""JSON lines are ended by line feeds, and numbered as editors number them."""

from tinybrain.routing.calibration.lines import numbered_lines


def test_lines_are_numbered_and_empty_ones_left_out():
    assert list(numbered_lines("a\n \n\nb")) == [(1, "a"), (4, "b")]


def test_what_may_stand_in_a_json_string_ends_no_line():
    assert list(numbered_lines("a\u2028b\x85c\n")) == [(1, "a\u2028b\x85c")]
