"""The `tinybrain` command."""
