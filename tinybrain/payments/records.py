"""What the ledger is told, and the states it keeps. Amounts are atomic USDC."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from tinybrain.usdc import Usdc


class PaymentState(StrEnum):
    """Where a caller's payment stands."""

    CLAIMED = "claimed"
    SERVED = "served"
    SETTLING = "settling"
    SETTLED = "settled"
    RELEASED = "released"
    DEBT = "debt"


UNSETTLED = (
    PaymentState.CLAIMED,
    PaymentState.SERVED,
    PaymentState.SETTLING,
    PaymentState.DEBT,
)
"""The states in which an answer is or will be delivered and its money has not arrived."""


class PurchaseState(StrEnum):
    """Where a purchase upstream stands."""

    RESERVED = "reserved"
    PAID = "paid"
    RELEASED = "released"


class Charge(Enum):
    """Whether an answer that ended is charged."""

    YES = "yes"
    NO = "no"
    IF_BOUGHT = "if bought"  # only if money was spent on it upstream


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """An answer about to be worked on. `credential` is "x402" or "api_key"."""

    id: str
    credential: str
    mode: str
    price: Usdc


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A verified authorization. Addresses and nonce are lower case: they are the claim's key."""

    network: str
    asset: str
    payer: str
    nonce: str
    pay_to: str
    amount: Usdc
    valid_before: int
    request_hash: str
    payload: dict[str, Any]
    requirements: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """What is known of an answer when it ends. `outcome`: completed, aborted or failed."""

    outcome: str
    error: str | None = None
    answered_by: str | None = None
    model: str | None = None
    reason: str | None = None
    rule: str | None = None
    signals: dict[str, Any] | None = None
    fallback: bool = False
    perplexity: float | None = None
    confidence: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None


@dataclass(frozen=True, slots=True)
class NewPurchase:
    """A quote about to be paid."""

    answer_id: str
    provider: str
    network: str
    asset: str
    payer: str
    pay_to: str
    amount: Usdc
