import pytest

from tinybrain.engine.tool_use import ToolUse


@pytest.fixture
def tool(golden_tokenizer):
    return ToolUse(golden_tokenizer)


@pytest.fixture
def tokens(golden_tokenizer):
    """Token ids of texts, and of special tokens named in angle brackets."""

    def ids(part):
        if part.startswith("<"):
            return [golden_tokenizer.special(part.strip("<>"))]
        return golden_tokenizer.encode(part)

    return lambda *parts: [token for part in parts for token in ids(part)]


@pytest.fixture
def call(tokens):
    return lambda expression: tokens("<python_start>", expression, "<python_end>")


@pytest.fixture
def output(tokens):
    return lambda value: tokens("<output_start>", value, "<output_end>")


def forced(tool, ids):
    return [after for token in ids for after in tool.push(token)]


def test_the_end_of_an_expression_is_followed_by_its_value(tool, tokens, call, output):
    *before, end = tokens("That is ") + call("12*34")
    assert forced(tool, before) == []
    assert tool.push(end) == output("408")


def test_each_expression_has_its_own_value(tool, call, output):
    assert forced(tool, call("1+1")) == output("2")
    assert forced(tool, call("'strawberry'.count('r')")) == output("3")


def test_a_value_that_is_pushed_too_changes_nothing(tool, call, output):
    assert forced(tool, call("1+1") + output("2") + call("2+3")) == output("2") + output("5")


def test_a_second_start_forgets_what_was_written(tool, tokens, call, output):
    assert forced(tool, tokens("<python_start>", "1+") + call("2+3")) == output("5")


@pytest.mark.parametrize(
    "parts",
    [
        ("1+1", "<python_end>"),
        ("<python_start>", "1+1"),
        ("<python_start>", "<python_end>"),
        ("<python_start>", "1/0", "<python_end>"),
        ("<python_start>", "1+1", "<python_end>", "<python_end>"),
        ("<output_start>", "1+1", "<output_end>"),
    ],
)
def test_nothing_else_is_followed_by_anything(tool, tokens, parts):
    *before, last = tokens(*parts)
    forced(tool, before)
    assert tool.push(last) == []


def test_half_a_character_is_no_expression(tool, golden_tokenizer, call):
    ids = range(golden_tokenizer.vocab_size)
    half = next(token for token in ids if golden_tokenizer.token_bytes(token) == b"\xe9")
    start, end = call("")
    assert forced(tool, [start, half, end]) == []


def test_it_tells_what_is_expression(tool, tokens, output):
    expression = tokens("<python_start>", "1+1")
    told = []
    for token in expression + tokens("<python_end>") + output("2"):
        tool.push(token)
        told.append(tool.in_expression)
    assert told == [True] * len(expression) + [False] * (len(told) - len(expression))
