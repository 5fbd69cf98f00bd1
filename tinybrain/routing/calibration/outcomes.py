"""Labelled outcomes: how much the small model doubted, and was it right."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinybrain.routing.signals import Signals

FEWEST = 200
"""Fewer calibrate nothing."""
FEWEST_OF_A_LABEL = 20
"""As many of them must be right, and as many wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One question that the small model answered greedily.

    `family` is what it is about (capitals, small talk); `kind` what is known of it (withheld, out
    of scope), for reports alone. `declined`: the model said itself that it does not know.
    """

    family: str
    kind: str
    right: bool
    signals: Signals
    declined: bool = False


def answered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that the small model did not decline."""
    return [o for o in outcomes if not o.declined]
