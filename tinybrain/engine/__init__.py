"""The small model: nanochat checkpoints, run with their own uncertainty told for every token."""
