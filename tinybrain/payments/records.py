"""What the ledger is told, and the states it keeps. Amounts are atomic USDC."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from tinybrain.config import Flow, Settings
from tinybrain.usdc import Usdc

AUDIT = "aud_"
"""How the id begins that a purchase has instead of an answer's, if it checks TinyChat's answer."""
MIXED = "mixed"
"""Who wrote an answer whose choices are not all of the same model."""


class PaymentState(StrEnum):
    """Where a payment stands."""

    CLAIMED = "claimed"  # taken, and nothing else may be bought with it
    SERVED = "served"  # what it pays for is done: to be settled
    SETTLING = "settling"  # with the facilitator; its outcome is looked up on the chain
    SETTLED = "settled"
    RELEASED = "released"  # nothing was delivered, nothing is collected
    REFUNDED = "refunded"  # collected, and given back as a whole
    DEBT = "debt"  # delivered, and cannot be collected
    REPAID = "repaid"  # a debt that another payment paid


UNSETTLED = (PaymentState.CLAIMED, PaymentState.SERVED, PaymentState.SETTLING)
"""The states in which something is or will be delivered and its money has not arrived."""


class Purpose(StrEnum):
    """What a payment pays for."""

    ANSWER = "answer"
    TAB = "tab"  # a tab's deposit, or the settlement that closes a bar tab
    DEBT = "debt"  # what a payer owed
    REFUND = "refund"  # from us to a payer


class TabState(StrEnum):
    """Where a tab stands."""

    OPENING = "opening"  # its deposit is not settled yet
    OPEN = "open"
    CLOSING = "closing"  # nothing can be asked any more; its money is on the way
    CLOSED = "closed"


class ChargeState(StrEnum):
    """Where the charge of one answer to a tab stands."""

    HELD = "held"
    CAPTURED = "captured"
    RELEASED = "released"


class PurchaseState(StrEnum):
    """Where a purchase upstream stands."""

    RESERVED = "reserved"
    PAID = "paid"
    RELEASED = "released"


class Charge(Enum):
    """Whether an answer that ended is charged."""

    YES = "yes"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Limits:
    """How far payers are trusted, and what may be spent upstream."""

    unsettled_per_payer: Usdc = Usdc(80_000)
    unsettled: Usdc = Usdc(25_000_000)
    trust_after: int = 0  # settled payments before a payer is served ahead of settlement
    refunds_per_hour: int = 10  # a payer's: each costs us the gas of two transactions, and him none
    cost_per_hour: Usdc = Usdc(1_000_000)
    cost_per_day: Usdc = Usdc(5_000_000)
    cost_per_provider: Usdc = Usdc(5_000_000)  # a day
    audits_per_day: Usdc = Usdc(50_000)
    margin: Usdc = Usdc(0)  # what an answer's price must exceed its cost by

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """The limits that the settings name."""
        return cls(
            unsettled_per_payer=settings.max_unsettled_per_payer,
            unsettled=settings.max_unsettled,
            trust_after=settings.trust_after,
            cost_per_hour=settings.max_cost_per_hour,
            cost_per_day=settings.max_cost_per_day,
            cost_per_provider=settings.max_cost_per_provider,
            audits_per_day=settings.audit_budget_per_day,
            margin=settings.min_margin,
        )


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """An answer about to be worked on. `credential` is "x402", "tab" or "api_key"."""

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
    purpose: Purpose = Purpose.ANSWER
    flow: Flow = "authorization"
    identifier: str | None = None


@dataclass(frozen=True, slots=True)
class NewTab:
    """A tab about to be opened. `token_hash` is the SHA-256 of its secret, hexadecimal."""

    id: str
    token_hash: str
    kind: str  # "bar": settled when it is closed; "prepaid": settled when it is opened


@dataclass(frozen=True, slots=True)
class TabCharge:
    """One answer to be charged to a tab."""

    token_hash: str
    request_hash: str
    idempotency_key: str | None = None
    retried: bool = False  # by a client that sends no key with its automatic retries


@dataclass(frozen=True, slots=True)
class Recorded:
    """An answer that the same payment, or the same idempotency key, asked for before."""

    answer_id: str
    outcome: str  # running | completed | aborted | failed
    reply: dict[str, Any] | None  # None while it runs, and once it is no longer kept


@dataclass(frozen=True, slots=True)
class Collected:
    """A transfer that the chain shows."""

    payment_id: int
    transaction: str
    block: int | None


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
    checkpoint: str | None = None
    fallback: bool = False
    perplexity: float | None = None
    confidence: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    choices: list[dict[str, Any]] | None = None  # the course of each; see Progress.record


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

    @property
    def is_audit(self) -> bool:
        """Whether it checks an answer, instead of being sold on."""
        return self.answer_id.startswith(AUDIT)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate measured for one answer, and why it was escalated, or "none"."""

    signals: dict[str, Any]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What was bought in the last 24 hours, paid or reserved, in atomic USDC; and what was judged.

    `total` is of everything, `audits` of checking answers. The others are of the last `seconds`:
    a day, or since a checkpoint's gate judged its first answer. In them it judged `judged` answers,
    `doubted` was paid for the `doubts` that it found too uncertain, and `others` for all else.
    """

    total: Usdc
    audits: Usdc
    doubted: Usdc
    others: Usdc
    doubts: int
    judged: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Whether the small model was right, where it doubted so much. No texts.

    `source` is "audit", of an answer that was given, or "escalated", of a draft made afterwards;
    `probability` that with which it was chosen.
    """

    checkpoint: str
    source: str
    signals: dict[str, Any]
    is_declined: bool
    is_right: bool
    probability: float
