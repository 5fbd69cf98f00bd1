"""x402 on both sides: what is sold, what is bought, and the ledger between."""
