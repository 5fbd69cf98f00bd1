import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybrain.engine.calculator import LARGEST, MAX_CHARACTERS, calculate

NUMBERS = st.one_of(
    st.integers(0, 10**6).map(str),
    st.decimals(0, 1000, places=3).map(str),
    st.sampled_from([".5", "7.", "007.5", "00"]),
)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-"), inner).map("".join),
        inner.map("( {} )".format),
        st.tuples(inner, st.sampled_from(["+", " - ", "*", " / ", "//"]), inner).map("".join),
    ),
    max_leaves=6,
).filter(lambda expression: len(expression) <= MAX_CHARACTERS)


def in_python(expression):
    try:
        with warnings.catch_warnings(action="ignore"):
            return str(eval(expression))
    except (ArithmeticError, SyntaxError, TypeError):
        return None


@given(EXPRESSIONS)
def test_arithmetic_is_pythons(expression):
    assert calculate(expression) == in_python(expression)


@given(st.text("0123456789+-*/.() ", max_size=12).filter(lambda text: "**" not in text))
def test_whatever_has_a_value_has_pythons(text):
    assert calculate(text) in (in_python(text), None)


@given(st.text("ab, '\"._-é", max_size=12), st.text("ab, é", max_size=2))
def test_a_count_is_that_of_the_texts_without_commas(text, part):
    quoted = text.replace('"', "")
    expected = quoted.replace(",", "").count(part.replace(",", ""))
    assert calculate(f"\"{quoted}\".count('{part}')") == str(expected)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * 4", "48"),
        (" 1,234 + 5", "1239"),
        ("10/2", "5.0"),
        ("7//2", "3"),
        (".1+.2", "0.30000000000000004"),
        ("-0.0", "-0.0"),
        ("'strawberry'.count('r')", "3"),
    ],
)
def test_known_expressions_have_nanochats_answers(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "1/0",
        "1.5//0",
        "2**3",
        "9**9**9",
        "2*,*3",
        "1e5",
        "1_0",
        "0x1f",
        "012",
        "1 2",
        "...",
        "()",
        "1(2)",
        "1+\n1",
        "abs(1)",
        "'a'",
        "'a'.count('a') + 1",
        "'a'.count(\"a')",
        "'a\\'.count('a')",
        "'a'.upper()",
        "__import__('os').getpid()",
    ],
)
def test_what_is_no_such_expression_has_no_value(expression):
    assert calculate(expression) is None


def test_length_is_bounded():
    assert calculate("1+" * (MAX_CHARACTERS // 2 - 1) + "10") is not None
    assert calculate("1+" * (MAX_CHARACTERS // 2) + "1") is None
    assert calculate("'" + "a" * MAX_CHARACTERS + "'.count('a')") is None


@pytest.mark.parametrize("opening", ["(", "-", "(-"])
def test_the_deepest_nesting_has_a_value_or_none(opening):
    depth = (MAX_CHARACTERS - 1) // (len(opening) + opening.count("("))
    assert calculate(opening * depth + "1" + ")" * depth * opening.count("(")) in ("1", "-1")
    assert calculate(opening * (MAX_CHARACTERS // len(opening))) is None


def test_no_value_on_the_way_is_larger_than_the_largest():
    assert calculate(f"-{LARGEST}") == f"-{LARGEST}"
    assert calculate(f"{LARGEST}+1") is None
    assert calculate(f"{LARGEST}*10/{LARGEST}") is None
    assert calculate("0*" + "9" * 120) is None
