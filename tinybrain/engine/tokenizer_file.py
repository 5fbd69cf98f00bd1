"""Tokenizer files, read as the data they should be.

Reads nanochat's `tokenizer.pkl` without running anything it names, and TinyBrain's own
`tokenizer.json`: {"pat_str", "ranks" (base64, in order of rank), "special_tokens"}.
"""

import base64
import io
import json
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinybrain.errors import ConfigError

MAX_FILE_BYTES = 16 << 20
MAX_TOKENS = 1 << 18

SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)

# GPT-4's split pattern with runs of 1, 2 or 3 digits. No other is accepted: a pattern is a
# program, and a hostile one can take exponential time.
SPLIT_PATTERNS = frozenset(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{"
    + digits
    + r"}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    for digits in ("1", "1,2", "1,3")
)

# All that nanochat's files use. What is missing matters: REDUCE and its like call things, and
# LONG_BINPUT can be made to allocate gigabytes.
PICKLE_OPCODES = frozenset(
    {
        "PROTO",
        "FRAME",
        "STOP",
        "STACK_GLOBAL",
        "NEWOBJ",
        "BUILD",
        "EMPTY_TUPLE",
        "EMPTY_DICT",
        "MARK",
        "SETITEM",
        "SETITEMS",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BININT",
        "BININT1",
        "BININT2",
        "MEMOIZE",
        "BINGET",
        "LONG_BINGET",
    }
)


@dataclass(frozen=True, slots=True)
class TokenizerTable:
    """All that defines a tokenizer, checked.

    Raises:
        ValueError: The pattern is not one of nanochat's, ranks are not 0..n-1 with every single
            byte among them, or the special tokens are not the nine that follow them.
    """

    pattern: str
    ranks: dict[bytes, int]
    special_tokens: dict[str, int]

    def __post_init__(self) -> None:
        if self.pattern not in SPLIT_PATTERNS:
            raise ValueError("the split pattern is not one that nanochat uses")
        size = len(self.ranks)
        if size > MAX_TOKENS:
            raise ValueError(f"{size} tokens are more than the {MAX_TOKENS} accepted")
        if not all(type(k) is bytes and type(v) is int for k, v in self.ranks.items()):
            raise ValueError("ranks do not map bytes to integers")
        if sorted(self.ranks.values()) != list(range(size)):
            raise ValueError("ranks do not run from 0 without gaps")
        if not all(bytes([byte]) in self.ranks for byte in range(256)):
            raise ValueError("not every single byte is a token")
        if self.special_tokens != {name: size + i for i, name in enumerate(SPECIAL_TOKENS)}:
            raise ValueError("the special tokens are not nanochat's nine, following the ranks")


def read_tokenizer(path: Path) -> TokenizerTable:
    """Read a `.pkl` or `.json` tokenizer file.

    Raises:
        ConfigError: The file is missing, too large, or not what such a file should be.
    """
    try:
        data = _read_bounded(path)
        return _from_pickle(data) if path.suffix == ".pkl" else _from_json(data)
    except Exception as error:
        # A damaged pickle or JSON document can raise nearly anything.
        raise ConfigError(f"The tokenizer {path} cannot be read: {error}") from error


def write_tokenizer(table: TokenizerTable, path: Path) -> None:
    """Write `tokenizer.json`."""
    by_rank = sorted(table.ranks, key=table.ranks.__getitem__)
    document = {
        "pat_str": table.pattern,
        "ranks": [base64.b64encode(token).decode() for token in by_rank],
        "special_tokens": table.special_tokens,
    }
    path.write_text(json.dumps(document, indent=0) + "\n", encoding="utf-8")


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return data


def _from_json(data: bytes) -> TokenizerTable:
    document = json.loads(data)
    tokens = [base64.b64decode(token, validate=True) for token in document["ranks"]]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return TokenizerTable(document["pat_str"], ranks, document["special_tokens"])


def _from_pickle(data: bytes) -> TokenizerTable:
    for opcode, _, _ in pickletools.genops(data):
        if opcode.name not in PICKLE_OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name} has no business in a tokenizer")
    encoding = _DataUnpickler(io.BytesIO(data)).load()
    if type(encoding) is not _Encoding or type(encoding.state) is not dict:
        raise ValueError("it is no pickled tiktoken.Encoding")
    state = encoding.state
    if set(state) != {"name", "pat_str", "mergeable_ranks", "special_tokens"}:
        raise ValueError("its fields are not those of a tiktoken.Encoding")
    return TokenizerTable(state["pat_str"], state["mergeable_ranks"], state["special_tokens"])


class _Encoding:
    """Stands in for tiktoken's class, whose `__setstate__` would load plugins by name."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Encoding]:
        if (module, name) != ("tiktoken.core", "Encoding"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _Encoding
