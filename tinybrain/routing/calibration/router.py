"""`router.json`: the estimate of P(wrong) that belongs to one checkpoint, with what it rests on."""

import json
import math
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tinybrain.errors import ConfigError
from tinybrain.faults import first_fault
from tinybrain.routing.calibration.outcomes import Outcome
from tinybrain.routing.calibration.report import Report
from tinybrain.routing.calibration.scorer import Scorer
from tinybrain.routing.calibration.target import Target
from tinybrain.routing.signals import Signals

MAX_BYTES = 4_000_000
MAX_OUTCOMES = 10_000

FITTED_ON = 3
"""One in so many outcomes is fitted on, and not kept."""

MAX_CALIBRATED = MAX_OUTCOMES * FITTED_ON // (FITTED_ON - 1)
"""Of so many a router holds what is kept."""

DIGITS = 3  # significant ones of a signal

Row = tuple[str, str, Literal["right", "wrong", "declined"], list[float | None]]
"""Family, kind, what the answer was, and the signals in the order of their names."""


class Router(BaseModel):
    """A calibration, with the outcomes on which its thresholds are chosen.

    Nothing was fitted to these but the two numbers that turn a score into a probability. `report`
    tells what it is worth with its own target, measured on other outcomes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Literal[2] = 2
    checkpoint: str = Field(pattern=r"^[\w.:/@-]{1,200}$")
    made: date
    hold_back_tokens: int = Field(ge=1, le=64)
    declines: str | None = Field(default=None, min_length=1, max_length=200)
    target: Target
    opening: Scorer
    prefill: Scorer | None
    report: Report | None = None
    signals: list[str]
    rows: list[Row] = Field(min_length=1, max_length=MAX_OUTCOMES)

    @field_validator("rows")
    @classmethod
    def _are_outcomes(cls, rows: list[Row], info: ValidationInfo) -> list[Row]:
        names = info.data.get("signals", [])
        for _, _, _, values in rows:
            Signals.read(dict(zip(names, values, strict=True)))
        return rows

    @model_validator(mode="after")
    def _has_its_own_report(self) -> Self:
        report = self.report
        if report and (report.checkpoint, report.target) != (self.checkpoint, self.target):
            raise ValueError("its report is of another checkpoint or target")
        return self

    @property
    def outcomes(self) -> list[Outcome]:
        """The rows, read."""
        return [
            Outcome(
                family=family,
                kind=kind,
                right=answer == "right",
                declined=answer == "declined",
                signals=Signals.read(dict(zip(self.signals, values, strict=True))),
            )
            for family, kind, answer, values in self.rows
        ]

    @classmethod
    def of(
        cls,
        outcomes: Sequence[Outcome],
        *,
        checkpoint: str,
        made: date,
        hold_back_tokens: int,
        target: Target,
        opening: Scorer,
        prefill: Scorer | None,
        declines: str | None = None,
    ) -> Self:
        """A router with these outcomes in it, rounded."""
        return cls(
            checkpoint=checkpoint,
            made=made,
            hold_back_tokens=hold_back_tokens,
            declines=declines,
            target=target,
            opening=opening,
            prefill=prefill,
            signals=list(outcomes[0].signals.recorded()),
            rows=[
                (o.family, o.kind, _told(o), [_rounded(v) for v in o.signals.recorded().values()])
                for o in outcomes
            ],
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `router.json`.

        Raises:
            ConfigError: It cannot be read, is too large, or is no router of this version.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ConfigError(f"{path} is no router: it has over {MAX_BYTES} bytes.")
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            where, what = first_fault(error)
            raise ConfigError(
                f"{path} is no router that this version reads: {where or 'the file'}: {what}. "
                "Calibrate again, or name another with TINYBRAIN_ROUTER."
            ) from error

    def write(self, path: Path) -> None:
        """Write it, a row a line; a reader, or a fault, never meets half of it."""
        whole = self.model_dump(mode="json", exclude={"rows"})
        head = json.dumps(whole, indent=1, allow_nan=False).removesuffix("\n}")
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in self.rows)
        beside = path.with_name(f"{path.name}.{os.getpid()}.new")
        beside.write_text(f'{head},\n "rows": [\n{rows}\n]\n}}\n', encoding="utf-8")
        beside.replace(path)

    def require(self, checkpoint: str) -> None:
        """Check that it is the router of this checkpoint.

        Raises:
            ConfigError: It is another's.
        """
        if checkpoint != self.checkpoint:
            raise ConfigError(
                f"The router is of the checkpoint {self.checkpoint}, not of {checkpoint}: its "
                "P(wrong) would mean nothing. Calibrate this checkpoint, name its router with "
                "TINYBRAIN_ROUTER, or remove the router to go by the least certain token alone."
            )


def _told(outcome: Outcome) -> Literal["right", "wrong", "declined"]:
    if outcome.declined:
        return "declined"
    return "right" if outcome.right else "wrong"


def _rounded(value: float | None) -> float | None:
    if not value:
        return value
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
