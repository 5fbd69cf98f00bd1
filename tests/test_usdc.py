"""Amounts of money."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.usdc import format_usdc, parse_usdc, plain_usdc


@pytest.mark.parametrize(
    ("text", "atomic"),
    [
        ("0.01", 10_000),
        ("$0.01", 10_000),
        ("1", 1_000_000),
        ("0.000001", 1),
        (7, 7),
        (" $2 ", 2 * 10**6),
    ],
)
def test_dollars_are_text_and_atomic_units_are_integers(text, atomic):
    assert parse_usdc(text) == atomic


@pytest.mark.parametrize("bad", ["", "x", "-1", "0.0000001", "nan", "inf", 0.01, None, True, -1])
def test_anything_else_is_no_amount(bad):
    with pytest.raises(ValueError, match="amount"):
        parse_usdc(bad)


@pytest.mark.parametrize(
    ("atomic", "text"),
    [(10_000, "$0.01"), (1_000, "$0.001"), (1, "$0.000001"), (0, "$0.00"), (-10_000, "-$0.01"),
     (1_234_500_000, "$1,234.50")],
)  # fmt: skip
def test_amounts_are_shown_as_dollars(atomic, text):
    assert format_usdc(atomic) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_what_is_shown_reads_back_as_the_same_amount(atomic):
    assert parse_usdc(format_usdc(atomic).replace(",", "")) == atomic
    assert parse_usdc(plain_usdc(atomic)) == atomic


def test_json_bodies_have_neither_dollar_sign_nor_commas():
    assert plain_usdc(1_234_560_000) == "1234.56"
