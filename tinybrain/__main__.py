"""`python -m tinybrain` is the `tinybrain` command."""

from tinybrain.cli import app

app()
