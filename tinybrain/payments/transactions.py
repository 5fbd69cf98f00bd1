"""Transactions of hot wallets as they are signed, priced and kept until they are mined."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A signed transaction; `raw` and `data` are 0x and hexadecimal digits, fees wei per gas."""

    wallet: str
    nonce: int
    hash: str
    raw: str = field(repr=False)
    to: str
    data: str = field(repr=False)
    gas: int
    max_fee: int
    priority_fee: int
    created_ms: int


class TransactionStore(Protocol):
    """Keeps what was signed until it is mined."""

    async def record(self, tx: SignedTransaction) -> None:
        """Keep a transaction; called before it is sent, at times again for the same hash."""
        ...

    async def unmined(self, wallet: str) -> list[SignedTransaction]:
        """Those of a wallet whose nonces are open, in the order they were recorded."""
        ...

    async def mined(self, wallet: str, nonce: int, tx_hash: str | None) -> None:
        """A nonce is closed: by the transaction of that hash, or (None) by none of ours."""
        ...


class Fees(NamedTuple):
    """Wei for each unit of gas: at most, and the tip within it."""

    max_fee: int
    priority_fee: int

    def raised(self, floor: "Fees") -> "Fees":
        """12.5 % more, as nodes ask of a replacement, and not less than `floor`."""
        pairs = zip(self, floor, strict=True)
        return Fees(*(max(-(-mine * 9 // 8), least) for mine, least in pairs))
