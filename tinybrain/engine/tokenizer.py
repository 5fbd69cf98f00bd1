"""Text to token ids and back to bytes.

Knows nothing of files. Text never yields special tokens, whatever a caller writes.
"""

import tiktoken

from tinybrain.engine.tokenizer_file import TokenizerTable

SEGMENT_CHARACTERS = 65_536
"""Longest text given to tiktoken at once: its pattern overflows on a million spaces."""


class Tokenizer:
    """A byte-pair encoding with nanochat's nine special tokens."""

    def __init__(self, table: TokenizerTable) -> None:
        self._encoding = tiktoken.Encoding(
            "nanochat",
            pat_str=table.pattern,
            mergeable_ranks=table.ranks,
            special_tokens=table.special_tokens,
        )
        self._special = table.special_tokens

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._encoding.n_vocab

    def special(self, name: str) -> int:
        """Id of a special token, for example "bos" or "user_start"."""
        return self._special[f"<|{name}|>"]

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; the names of special tokens in it are just characters."""
        segments = (
            text[start : start + SEGMENT_CHARACTERS]
            for start in range(0, len(text), SEGMENT_CHARACTERS)
        )
        return [token for s in segments for token in self._encoding.encode_ordinary(s)]

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for, perhaps part of a character; none for special tokens."""
        if token >= self.vocab_size - len(self._special):
            return b""
        return self._encoding.decode_single_token_bytes(token)
