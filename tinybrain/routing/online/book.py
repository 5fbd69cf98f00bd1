"""Where judged answers and labels are kept: `payments.ledger.outcomes`."""

from collections.abc import Sequence
from typing import Protocol

from tinybrain.payments.records import Judged, Label, Spending


class Book(Protocol):
    """Every method raises LedgerUnavailable while the database cannot be used."""

    async def record(self, label: Label) -> None:
        """Keep a label."""

    async def labels(self, checkpoint: str, *, limit: int) -> Sequence[Label]:
        """The latest labels of a checkpoint."""
        ...

    async def judged(self, checkpoint: str, *, limit: int) -> Sequence[Judged]:
        """The latest answers that a checkpoint's gate judged."""
        ...

    async def spending(self, checkpoint: str) -> Spending:
        """What the last 24 hours cost, and how much of it a checkpoint's gate decided."""
        ...
