"""The ledger's tables. Amounts are atomic USDC, times are Unix milliseconds.

Only `ledger/` writes them. A change here needs a migration in `migrations/versions`; a test
compares the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

answers = Table(
    "answers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("credential", String(16), nullable=False),  # x402 | tab | api_key
    Column("mode", String(16), nullable=False),  # auto | local | upstream
    Column("outcome", String(16), nullable=False),  # running | completed | aborted | failed
    Column("error", String(300)),
    Column("price", BigInteger, nullable=False),
    Column("answered_by", String(16)),  # tinychat | upstream | mixed
    Column("model", String(200)),
    Column("reason", String(16)),  # why it was escalated, or "none"
    Column("rule", String(40)),
    Column("signals", JSON),  # what the gate measured
    Column("checkpoint", String(200)),  # whose router gave the gate, where it judged
    Column("fallback", Boolean, nullable=False),
    Column("perplexity", Float),
    Column("confidence", Float),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("ttft_ms", Float),
    Column("total_ms", Float),
    Column("choices", JSON(none_as_null=True)),  # the course of each, or none
    Index("answers_by_time", "created_ms"),
    Index("answers_by_outcome", "outcome", "created_ms"),
    Index("answers_by_checkpoint", "checkpoint", "created_ms"),
)

outcomes = Table(  # labelled answers of the small model: was it right where it doubted so much
    "outcomes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("checkpoint", String(200), nullable=False),
    Column("source", String(16), nullable=False),  # audit | escalated
    Column("signals", JSON, nullable=False),
    Column("is_declined", Boolean, nullable=False),
    Column("is_right", Boolean, nullable=False),
    Column("probability", Float, nullable=False),  # with which it was chosen to be labelled
    Index("outcomes_by_checkpoint", "checkpoint", "id"),
)

replies = Table(
    "replies",
    metadata,
    Column("id", String(40), primary_key=True),  # of the answer, or of the tab
    Column("body", JSON, nullable=False),  # what was sent, to be sent again to the same payment
    Column("created_ms", BigInteger, nullable=False),
    Index("replies_by_time", "created_ms"),
)

payments = Table(  # EIP-3009 transfers that we settle: callers' to us, and our refunds to them
    "payments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("purpose", String(16), nullable=False),  # answer | tab | debt | refund
    Column("flow", String(16), nullable=False),  # authorization | upfront
    Column("answer_id", String(40), ForeignKey("answers.id")),
    Column("tab_id", String(40)),
    Column("refund_of", Integer),  # the payment that a refund gives back
    Column("debtor", String(42)),  # whose debts a payment for debts pays
    Column("repaid_by", Integer),  # the payment that paid this debt
    Column("identifier", String(128)),  # x402's payment-identifier extension
    Column("network", String(40), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("payer", String(42), nullable=False),
    Column("nonce", String(66), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("owed", BigInteger, nullable=False),  # what is lost if it cannot be collected
    Column("valid_before", BigInteger, nullable=False),  # Unix seconds, as signed
    Column("request_hash", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("requirements", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("note", String(300)),
    Column("transaction", String(66)),
    Column("block", BigInteger),
    Column("final", Boolean, nullable=False),  # deep enough that no reorganisation undoes it
    Column("attempts", Integer, nullable=False),
    Column("claimed_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),  # not to be worked on before
    UniqueConstraint("network", "asset", "payer", "nonce", name="one_answer_per_authorization"),
    UniqueConstraint("payer", "identifier", name="one_payment_per_identifier"),
    UniqueConstraint("refund_of", name="one_refund_per_payment"),
    Index("payments_by_state", "state", "due_ms"),
    Index("payments_by_answer", "answer_id"),
    Index("payments_by_payer", "payer", "state"),
    Index("payments_by_time", "claimed_ms"),
    Index("payments_by_tab", "tab_id"),
    Index("payments_by_depth", "final", "state", "block"),
    Index("payments_by_repayment", "repaid_by"),
)

tabs = Table(
    "tabs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),  # bar | prepaid
    Column("state", String(16), nullable=False),  # opening | open | closing | closed
    Column("payer", String(42), nullable=False),
    Column("payment_id", Integer, nullable=False),  # the deposit
    Column("settlement_id", Integer),  # a bar tab's payment of exactly what was used
    Column("deposit", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False),  # may be spent
    Column("held", BigInteger, nullable=False),  # of answers under way
    Column("spent", BigInteger, nullable=False),
    Column("refunded", BigInteger, nullable=False),  # given back, or never collected
    Column(
        "spendable_until", BigInteger
    ),  # Unix seconds; after it the deposit may expire unsettled
    Column("note", String(300)),
    Column("created_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger, nullable=False),
    CheckConstraint("balance >= 0", name="tab_balance_is_not_negative"),
    CheckConstraint("held >= 0", name="tab_held_is_not_negative"),
    CheckConstraint("balance + held + spent + refunded = deposit", name="tab_adds_up"),
    Index("tabs_by_state", "state", "used_ms"),
    Index("tabs_by_payer", "payer", "state"),
)

charges = Table(
    "charges",
    metadata,
    Column("answer_id", String(40), ForeignKey("answers.id"), primary_key=True),
    Column("tab_id", String(40), ForeignKey("tabs.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # held | captured | released
    Column("request_hash", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("tab_id", "idempotency_key", name="one_charge_per_idempotency_key"),
    Index("charges_by_tab", "tab_id", "state"),
)

purchases = Table(
    "purchases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("answer_id", String(40), nullable=False),
    Column("provider", String(200), nullable=False),  # host that sold it
    Column("network", String(40), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("payer", String(42), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("nonce", String(66)),  # null until signed
    Column("valid_before", BigInteger),
    Column("amount", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # reserved | paid | released
    Column("note", String(300)),
    Column("transaction", String(66)),  # as the seller told it, until it is final
    Column("final", Boolean, nullable=False),  # the chain was asked after it expired
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Index("purchases_by_time", "created_ms"),
    Index("purchases_by_state", "state", "created_ms"),
    Index("purchases_by_answer", "answer_id"),
    Index("purchases_by_provider", "provider", "created_ms"),
    Index("purchases_by_authorization", "payer", "nonce"),
    Index("purchases_by_depth", "final", "state", "valid_before"),
)

providers = Table(  # whom each host was paid first; another recipient is refused
    "providers",
    metadata,
    Column("host", String(200), primary_key=True),
    Column("network", String(40), primary_key=True),
    Column("pay_to", String(42), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

entries = Table(  # the journal: every movement of money, with the account it leaves and enters
    "entries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("debit", String(60), nullable=False),
    Column("credit", String(60), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("answer_id", String(40)),
    Column("payment_id", Integer),
    Column("purchase_id", Integer),
    Column("tab_id", String(40)),
    Column("transaction", String(66)),
    CheckConstraint("amount > 0", name="entry_moves_something"),
    Index("entries_by_debit", "debit"),
    Index("entries_by_credit", "credit"),
    Index("entries_by_answer", "answer_id"),
    Index("entries_by_payment", "payment_id", "kind"),
    Index("entries_by_purchase", "purchase_id"),
    Index("entries_by_time", "at_ms"),
)

transactions = Table(  # what the hot wallet signed, kept before it is sent
    "transactions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("network", String(40), nullable=False),
    Column("wallet", String(42), nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("hash", String(66), nullable=False),
    Column("raw", Text, nullable=False),
    Column("destination", String(42), nullable=False),
    Column("data", Text, nullable=False),
    Column("gas", BigInteger, nullable=False),
    Column("max_fee", BigInteger, nullable=False),  # wei for each unit of gas
    Column("priority_fee", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # sent | mined | replaced
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("network", "wallet", "hash", name="one_row_per_transaction"),
    Index("transactions_by_state", "wallet", "state", "nonce"),
)

anchors = Table(  # what a wallet held when its book was opened
    "anchors",
    metadata,
    Column("network", String(40), primary_key=True),
    Column("asset", String(42), primary_key=True),
    Column("address", String(42), primary_key=True),
    Column("block", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
