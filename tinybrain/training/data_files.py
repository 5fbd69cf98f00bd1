"""The texts and tables in `data/`, which are meant to be read and edited."""

from functools import cache
from importlib import resources
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a package of their own


@cache
def read_data(name: str) -> Any:
    """The document `data/<name>.yaml`."""
    return yaml.safe_load(read_text(f"{name}.yaml"))


def read_text(file: str) -> str:
    """What stands in `data/<file>`."""
    return (resources.files("tinybrain.training") / "data" / file).read_text(encoding="utf-8")


def lines(text: str) -> list[str]:
    """The lines of a block, without the empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip()]
