"""Conversations as training reads them, one JSON document a line."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tinybrain.engine.calculator import calculate
from tinybrain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the user says and what the model says.

    With an `expression` the model calls the calculator with it first; `assistant` then is the text
    after the value.
    """

    user: str
    assistant: str
    expression: str | None = None

    @property
    def value(self) -> str:
        """What the calculator answers; empty without an expression."""
        return (calculate(self.expression) or "") if self.expression else ""

    @property
    def answer(self) -> str:
        """What the user reads."""
        return self.value + self.assistant


Conversation = tuple[Exchange, ...]


def write_conversations(conversations: Iterable[Conversation], path: Path) -> None:
    """Write them, one a line."""
    with path.open("w", encoding="utf-8") as file:
        for conversation in conversations:
            file.write(json.dumps([asdict(e) for e in conversation], ensure_ascii=False) + "\n")


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Read what `write_conversations` wrote.

    Raises:
        ConfigError: There is no such file.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield tuple(Exchange(**exchange) for exchange in json.loads(line))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing. Make it with: python -m tinybrain.training corpus"
        ) from error
