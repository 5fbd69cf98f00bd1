"""Money: integers of atomic USDC (6 decimals), never floats."""

from decimal import Decimal, InvalidOperation
from typing import Annotated, NewType

from pydantic import BeforeValidator

Usdc = NewType("Usdc", int)
"""An amount in atomic USDC: 1_000_000 is one dollar."""

ATOMIC_PER_DOLLAR = 1_000_000


def parse_usdc(value: object) -> Usdc:
    """Read an amount: an int is atomic USDC, a string such as "$0.01" or "0.01" is dollars.

    Raises:
        ValueError: The value is negative, no number, or finer than one atomic unit.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        atomic = Decimal(value)
    elif isinstance(value, str):
        try:
            atomic = Decimal(value.strip().removeprefix("$")) * ATOMIC_PER_DOLLAR
        except InvalidOperation:
            raise ValueError(f"{value!r} is no amount; write dollars such as 0.01") from None
    else:
        raise ValueError(  # noqa: TRY004  # pydantic makes a message of it, not of a TypeError
            f"an amount is an int (atomic USDC) or a string (dollars), not {value!r}"
        )
    if not atomic.is_finite() or atomic != atomic.to_integral_value() or atomic < 0:
        raise ValueError(f"{value!r} is no amount of USDC: at least 0, at most six decimals")
    return Usdc(int(atomic))


def format_usdc(amount: int) -> str:
    """Dollars with as many decimals as the amount needs, at least two: 10000 -> "$0.01"."""
    sign = "-" if amount < 0 else ""
    dollars, rest = divmod(abs(amount), ATOMIC_PER_DOLLAR)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}${dollars:,}.{decimals}"


def plain_usdc(amount: int) -> str:
    """Dollars without dollar sign and commas, as JSON bodies write them: 10000 -> "0.01"."""
    return format_usdc(amount).replace("$", "").replace(",", "")


UsdcSetting = Annotated[Usdc, BeforeValidator(parse_usdc)]
"""A pydantic field that accepts what `parse_usdc` reads."""
