"""Where judged answers and labels are kept: `payments.ledger.outcomes`."""

from collections.abc import Sequence
from typing import Protocol

from tinybrain.payments.records import Judged, Label


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

    async def audit_spend(self) -> int:
        """What audits cost in the last 24 hours, in atomic USDC."""
        ...
