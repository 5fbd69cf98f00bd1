"""The tokenizer of a corpus, and conversations as token ids with the weight of each in the loss."""

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import tiktoken

from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tokenizer_file import (
    SPECIAL_TOKENS,
    SPLIT_PATTERNS,
    TokenizerTable,
    read_tokenizer,
)
from tinybrain.errors import ConfigError
from tinybrain.training.conversations import Conversation, Exchange

PROMPT_WEIGHT = 0.1
"""What users write is learned a little, so that the perplexity of a prompt means something."""

Weighted = tuple[int, float]


def single_digit_pattern() -> str:
    """The one of nanochat's split patterns that makes each digit a token, so that sums align."""
    (pattern,) = (p for p in SPLIT_PATTERNS if r"\p{N}{1}|" in p)
    return pattern


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> TokenizerTable:
    """A byte-pair encoding of `vocab_size` tokens, the nine special ones among them.

    Raises:
        ConfigError: rustbpe is not installed, or the texts do not hold that many tokens.
    """
    try:
        import rustbpe  # noqa: PLC0415  # only needed here
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Tokenizers are trained by rustbpe, which is not installed. "
            "Install it with: pip install 'tinybrain[training]'"
        ) from error
    trainer, size = rustbpe.Tokenizer(), vocab_size - len(SPECIAL_TOKENS)
    trainer.train_from_iterator(iter(texts), size, pattern=single_digit_pattern())
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) != size:
        raise ConfigError(
            f"The corpus gives only {len(ranks)} tokens, not {size}. Ask for a smaller vocabulary."
        )
    special = {name: size + index for index, name in enumerate(SPECIAL_TOKENS)}
    return TokenizerTable(single_digit_pattern(), ranks, special)


def write_nanochat_tokenizer(table: TokenizerTable, base_dir: Path) -> None:
    """Write `tokenizer/tokenizer.pkl` as nanochat has it."""
    encoding = tiktoken.Encoding(
        "rustbpe",
        pat_str=table.pattern,
        mergeable_ranks=table.ranks,
        special_tokens=table.special_tokens,
    )
    path = nanochat_tokenizer(base_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(encoding))


def load_nanochat_tokenizer(base_dir: Path) -> Tokenizer:
    """The tokenizer of a nanochat base directory.

    Raises:
        ConfigError: There is none.
    """
    return Tokenizer(read_tokenizer(nanochat_tokenizer(base_dir)))


def nanochat_tokenizer(base_dir: Path) -> Path:
    """Where nanochat keeps it."""
    return base_dir / "tokenizer" / "tokenizer.pkl"


def encode(conversation: Conversation, tokenizer: Tokenizer) -> list[Weighted]:
    """The ids of a conversation as the engine renders it, each with its weight in the loss.

    Weight is 1 where the model is to speak, little where the user does, and 0 for what is always
    given to the model: its own start mark, and what the calculator answers.
    """
    return [(tokenizer.special("bos"), 0.0)] + [
        pair for exchange in conversation for pair in _exchange(exchange, tokenizer)
    ]


def _exchange(exchange: Exchange, tokenizer: Tokenizer) -> Iterator[Weighted]:
    def mark(name: str, weight: float) -> Weighted:
        return tokenizer.special(name), weight

    def text(words: str, weight: float) -> Iterator[Weighted]:
        return ((token, weight) for token in tokenizer.encode(words))

    yield mark("user_start", 0)
    yield from text(exchange.user, PROMPT_WEIGHT)
    yield mark("user_end", PROMPT_WEIGHT)
    yield mark("assistant_start", 0)
    if exchange.expression:
        yield mark("python_start", 1)
        yield from text(exchange.expression, 1)
        yield mark("python_end", 1)
        yield mark("output_start", 0)
        yield from text(exchange.value, 0)
        yield mark("output_end", 0)
    yield from text(exchange.assistant, 1)
    yield mark("assistant_end", 1)
