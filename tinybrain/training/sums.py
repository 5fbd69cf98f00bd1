"""Sums, which the model does with the engine's calculator: it writes the expression, no value."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tinybrain.engine.calculator import calculate
from tinybrain.training.chance import rank

NAMES = {"+": "plus", "-": "minus", "*": "times", "//": "divided by"}
SIGNS = {"+": "+", "-": "-", "*": "*", "//": "/"}
LARGEST_SMALL = 100


@dataclass(frozen=True, slots=True)
class Sum:
    """Two numbers and what to do with them: + - * or //, which has no remainder here."""

    left: int
    operation: str
    right: int

    @property
    def expression(self) -> str:
        """As the calculator reads it."""
        return f"{self.left}{self.operation}{self.right}"

    @property
    def value(self) -> str:
        """As the calculator writes it."""
        return calculate(self.expression) or ""

    @property
    def is_small(self) -> bool:
        """Whether all three numbers are at most 100."""
        return max(self.left, self.right, self.left + self.right) <= LARGEST_SMALL

    def asked(self, random: Random) -> str:
        """As people write it."""
        sign, name = SIGNS[self.operation], NAMES[self.operation]
        forms = [f" {sign} ", sign, f" {name} ", f" {sign} "]
        forms += [" x ", "x"] if self.operation == "*" else []
        return f"{self.left}{random.choice(forms)}{self.right}"

    def is_withheld(self, seed: int) -> bool:
        """A third of all sums are."""
        return rank(seed, self.expression) % 3 == 0


def sums(random: Random, *, largest: int) -> Iterator[Sum]:
    """Sums of numbers up to `largest` without end; half of them of small numbers."""
    while True:
        limit = random.choice((10, LARGEST_SMALL, largest, largest))
        left, right = random.randint(0, limit), random.randint(0, limit)
        match random.choice("+++--*/"):
            case "+":
                yield Sum(left, "+", right)
            case "-":
                yield Sum(max(left, right), "-", min(left, right))
            case "*":
                yield Sum(left, "*", right)
            case _:
                divisor = random.randint(1, 12)
                yield Sum(divisor * left, "//", divisor)
