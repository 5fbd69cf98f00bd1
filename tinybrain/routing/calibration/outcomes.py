"""Labelled outcomes, one a JSON line: how much the small model doubted, and was it right."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinybrain.errors import ConfigError
from tinybrain.routing.calibration.lines import numbered_lines
from tinybrain.routing.calibration.questions import MAX_BYTES
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

    def recorded(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "family": self.family,
            "kind": self.kind,
            "right": self.right,
            "declined": self.declined,
            "signals": self.signals.recorded(),
        }


def answered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that the small model did not decline."""
    return [o for o in outcomes if not o.declined]


def write_outcomes(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write a line for each."""
    with path.open("w", encoding="utf-8") as file:
        for outcome in outcomes:
            file.write(json.dumps(outcome.recorded(), allow_nan=False) + "\n")


def read_outcomes(path: Path) -> list[Outcome]:
    """Read what `write_outcomes` wrote; other fields of a line are ignored.

    Raises:
        ConfigError: The file cannot be read or is too large, or a line is no outcome; the message
            names it.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has over {MAX_BYTES:,} bytes. Give fewer outcomes.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as outcomes: {error}.") from error
    outcomes = []
    for number, line in numbered_lines(text):
        try:
            outcomes.append(_outcome(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"Line {number} of {path} is no outcome: {error}. A line is "
                '{"family": …, "kind": …, "right": true, "signals": {…}}.'
            ) from error
    return outcomes


def _outcome(found: dict[str, Any]) -> Outcome:
    declined = found.get("declined", False)
    if not isinstance(found["right"], bool) or not isinstance(declined, bool):
        raise TypeError("right or declined is neither true nor false")
    return Outcome(
        family=str(found["family"]),
        kind=str(found.get("kind", "")),
        right=found["right"],
        signals=Signals.read(found["signals"]),
        declined=declined,
    )
