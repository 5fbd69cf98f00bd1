"""The ledger's tables. Amounts are atomic USDC, times are Unix milliseconds.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()

answers = Table(
    "answers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("credential", String(16), nullable=False),  # x402 | api_key
    Column("mode", String(16), nullable=False),  # auto | local | upstream
    Column("outcome", String(16), nullable=False),  # running | completed | aborted | failed
    Column("error", String(300)),
    Column("price", BigInteger, nullable=False),
    Column("answered_by", String(16)),  # tinychat | upstream
    Column("model", String(200)),
    Column("reason", String(16)),  # why it was escalated, or "none"
    Column("rule", String(40)),
    Column("signals", JSON),  # what the gate measured
    Column("fallback", Boolean, nullable=False),
    Column("perplexity", Float),
    Column("confidence", Float),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("ttft_ms", Float),
    Column("total_ms", Float),
    Index("answers_by_time", "created_ms"),
    Index("answers_by_outcome", "outcome", "created_ms"),
)

payments = Table(
    "payments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("answer_id", String(40), ForeignKey("answers.id"), nullable=False),
    Column("network", String(40), nullable=False),
    Column("asset", String(42), nullable=False),
    Column("payer", String(42), nullable=False),
    Column("nonce", String(66), nullable=False),
    Column("pay_to", String(42), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("valid_before", BigInteger, nullable=False),  # Unix seconds, as signed
    Column("request_hash", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("requirements", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("note", String(300)),
    Column("transaction", String(66)),
    Column("attempts", Integer, nullable=False),
    Column("claimed_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),  # not to be worked on before
    UniqueConstraint("network", "asset", "payer", "nonce", name="one_answer_per_authorization"),
    Index("payments_by_state", "state", "due_ms"),
    Index("payments_by_answer", "answer_id"),
    Index("payments_by_payer", "payer", "state"),
    Index("payments_by_time", "claimed_ms"),
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
    Column("transaction", String(66)),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Index("purchases_by_time", "created_ms"),
    Index("purchases_by_state", "state", "created_ms"),
    Index("purchases_by_answer", "answer_id"),
)
