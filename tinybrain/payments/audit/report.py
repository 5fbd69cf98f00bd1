"""What an audit found."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tinybrain.errors import TinyBrainError


class CannotAudit(TinyBrainError):
    """Ledger and chain could not be compared; the message says what is missing."""

    default_code = "cannot_audit"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know of a row or a transaction, which `subject` names."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class WalletBalance:
    """What a wallet should hold by the journal and what it holds, both at the audit's block.

    Amounts are atomic USDC; `opening` is what it held at `opened_at`, the block before its book.
    """

    address: str
    opened_at: int
    opening: int
    booked: int
    on_chain: int


@dataclass
class Report:
    """The outcome of an audit; `block` is the newest one that was compared."""

    block: int = 0
    wallets: list[WalletBalance] = field(default_factory=list)
    differences: list[Finding] = field(default_factory=list)
    under_way: list[Finding] = field(default_factory=list)
    debts: list[Finding] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Whether ledger and chain agree; debts and what is under way are no differences."""
        return not self.differences

    def differs(self, subject: str, text: str) -> None:
        """Note a difference."""
        self.differences.append(Finding(subject, text))

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON document."""
        return {"clean": self.clean, **asdict(self), "checked": dict(self.checked)}
