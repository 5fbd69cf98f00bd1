"""The calculator that nanochat models call: an expression in, its value as text out.

Knows no tokens. Nothing is run as Python, and work is bounded whatever a model writes. Source: the
expressions that karpathy/nanochat's engine answers, of November 2025.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

MAX_CHARACTERS = 128
"""Longest expression; bounds how deep one nests, too."""

LARGEST = 10**64
"""Largest magnitude of any value on the way."""

ARITHMETIC = re.compile(r"[0-9+\-*/.() ]+")
COUNT = re.compile(r"""(['"])((?:(?!\1)[^\\\n])*)\1\.count\((['"])((?:(?!\3)[^\\\n])*)\3\)""")

SIGNS: Mapping[type[ast.unaryop], Callable[[float], float]] = MappingProxyType(
    {ast.UAdd: operator.pos, ast.USub: operator.neg}
)
OPERATIONS: Mapping[type[ast.operator], Callable[[float, float], float]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
    }
)


def calculate(expression: str) -> str | None:
    """The value of an expression as Python prints it, or None where there is no answer.

    Either arithmetic (digits, + - * / // . and parentheses) or a count, `'text'.count('x')`.
    Commas are dropped first, as nanochat does, from the texts of a count too. None for anything
    else, for a division by zero, and for what exceeds MAX_CHARACTERS or LARGEST.
    """
    expression = expression.replace(",", "").strip(" ")
    if len(expression) > MAX_CHARACTERS:
        return None
    if count := COUNT.fullmatch(expression):
        return str(count[2].count(count[4]))
    if not ARITHMETIC.fullmatch(expression):
        return None
    try:
        return str(_value(ast.parse(expression, mode="eval").body))
    except (ArithmeticError, SyntaxError, ValueError):
        return None


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(int() | float() as value):
            pass
        case ast.UnaryOp(op, operand) if sign := SIGNS.get(type(op)):
            value = sign(_value(operand))
        case ast.BinOp(left, op, right) if operation := OPERATIONS.get(type(op)):
            value = operation(_value(left), _value(right))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is no arithmetic.")
    if abs(value) > LARGEST:
        raise OverflowError("A value is too large.")
    return value
