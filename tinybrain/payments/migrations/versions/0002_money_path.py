"""Double entry, tabs, refunds, idempotent replies, the hot wallet's transactions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Extend payments, add the new tables, and write the journal of what happened before."""
    _extend_payments()
    with op.batch_alter_table("purchases") as table:
        table.add_column(_filled("final", sa.Boolean(), sa.false()))
    op.create_index("purchases_by_provider", "purchases", ["provider", "created_ms"])
    op.create_index("purchases_by_authorization", "purchases", ["payer", "nonce"])
    op.create_index("purchases_by_depth", "purchases", ["final", "state", "valid_before"])
    op.create_table(
        "replies",
        sa.Column("id", sa.String(length=40), primary_key=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("replies_by_time", "replies", ["created_ms"])
    _create_tabs()
    _create_journal()
    _create_wallets()
    _write_journal()


def _extend_payments() -> None:
    with op.batch_alter_table("payments") as table:
        table.alter_column("answer_id", existing_type=sa.String(length=40), nullable=True)
        table.add_column(_filled("purpose", sa.String(length=16), "answer"))
        table.add_column(_filled("flow", sa.String(length=16), "authorization"))
        table.add_column(sa.Column("tab_id", sa.String(length=40)))
        table.add_column(sa.Column("refund_of", sa.Integer()))
        table.add_column(sa.Column("debtor", sa.String(length=42)))
        table.add_column(sa.Column("repaid_by", sa.Integer()))
        table.add_column(sa.Column("identifier", sa.String(length=128)))
        table.add_column(_filled("owed", sa.BigInteger(), "0"))
        table.add_column(sa.Column("block", sa.BigInteger()))
        table.add_column(_filled("final", sa.Boolean(), sa.false()))
        table.create_unique_constraint("one_payment_per_identifier", ["payer", "identifier"])
        table.create_unique_constraint("one_refund_per_payment", ["refund_of"])
    op.execute("UPDATE payments SET owed = amount")
    op.create_index("payments_by_tab", "payments", ["tab_id"])
    op.create_index("payments_by_depth", "payments", ["final", "state", "block"])
    op.create_index("payments_by_repayment", "payments", ["repaid_by"])


def _filled(name: str, kind: Any, default: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default=default)


def _create_tabs() -> None:
    op.create_table(
        "tabs",
        sa.Column("id", sa.String(length=40), primary_key=True),
        sa.Column("token_hash", sa.String(length=64), nullable=False, unique=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("payer", sa.String(length=42), nullable=False),
        sa.Column("payment_id", sa.Integer(), nullable=False),
        sa.Column("settlement_id", sa.Integer()),
        sa.Column("deposit", sa.BigInteger(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("spendable_until", sa.BigInteger()),
        sa.Column("note", sa.String(length=300)),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("balance >= 0", name="tab_balance_is_not_negative"),
        sa.CheckConstraint("held >= 0", name="tab_held_is_not_negative"),
        sa.CheckConstraint("balance + held + spent + refunded = deposit", name="tab_adds_up"),
    )
    op.create_index("tabs_by_state", "tabs", ["state", "used_ms"])
    op.create_index("tabs_by_payer", "tabs", ["payer", "state"])
    op.create_table(
        "charges",
        sa.Column("answer_id", sa.String(length=40), sa.ForeignKey("answers.id"), primary_key=True),
        sa.Column("tab_id", sa.String(length=40), sa.ForeignKey("tabs.id"), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255)),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("tab_id", "idempotency_key", name="one_charge_per_idempotency_key"),
    )
    op.create_index("charges_by_tab", "charges", ["tab_id", "state"])


def _create_journal() -> None:
    op.create_table(
        "entries",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("debit", sa.String(length=60), nullable=False),
        sa.Column("credit", sa.String(length=60), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("answer_id", sa.String(length=40)),
        sa.Column("payment_id", sa.Integer()),
        sa.Column("purchase_id", sa.Integer()),
        sa.Column("tab_id", sa.String(length=40)),
        sa.Column("transaction", sa.String(length=66)),
        sa.CheckConstraint("amount > 0", name="entry_moves_something"),
    )
    op.create_index("entries_by_debit", "entries", ["debit"])
    op.create_index("entries_by_credit", "entries", ["credit"])
    op.create_index("entries_by_answer", "entries", ["answer_id"])
    op.create_index("entries_by_payment", "entries", ["payment_id", "kind"])
    op.create_index("entries_by_purchase", "entries", ["purchase_id"])
    op.create_index("entries_by_time", "entries", ["at_ms"])


def _create_wallets() -> None:
    op.create_table(
        "providers",
        sa.Column("host", sa.String(length=200), primary_key=True),
        sa.Column("network", sa.String(length=40), primary_key=True),
        sa.Column("pay_to", sa.String(length=42), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "transactions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("network", sa.String(length=40), nullable=False),
        sa.Column("wallet", sa.String(length=42), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("destination", sa.String(length=42), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("gas", sa.BigInteger(), nullable=False),
        sa.Column("max_fee", sa.BigInteger(), nullable=False),
        sa.Column("priority_fee", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("network", "wallet", "hash", name="one_row_per_transaction"),
    )
    op.create_index("transactions_by_state", "transactions", ["wallet", "state", "nonce"])
    op.create_table(
        "anchors",
        sa.Column("network", sa.String(length=40), primary_key=True),
        sa.Column("asset", sa.String(length=42), primary_key=True),
        sa.Column("address", sa.String(length=42), primary_key=True),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )


def _write_journal() -> None:
    """Each served payment was a sale, each settled one a collection, each paid purchase a cost."""
    op.execute("""
        INSERT INTO entries (at_ms, kind, debit, credit, amount, answer_id, payment_id)
        SELECT claimed_ms, 'sale', 'payer:' || payer, 'revenue', amount, answer_id, id
        FROM payments WHERE amount > 0 AND state IN ('served', 'settling', 'settled', 'debt')
    """)
    op.execute("""
        INSERT INTO entries
            (at_ms, kind, debit, credit, amount, answer_id, payment_id, "transaction")
        SELECT updated_ms, 'collection', 'wallet:' || pay_to, 'payer:' || payer, amount,
            answer_id, id, "transaction"
        FROM payments WHERE amount > 0 AND state = 'settled'
    """)
    op.execute("""
        INSERT INTO entries
            (at_ms, kind, debit, credit, amount, answer_id, purchase_id, "transaction")
        SELECT updated_ms, 'purchase', 'cost', 'wallet:' || payer, amount,
            answer_id, id, "transaction"
        FROM purchases WHERE amount > 0 AND state = 'paid'
    """)
