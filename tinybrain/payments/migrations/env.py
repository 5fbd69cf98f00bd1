"""Alembic's entry: runs on the connection the ledger hands over, inside its transaction."""

from alembic import context

from tinybrain.payments.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
