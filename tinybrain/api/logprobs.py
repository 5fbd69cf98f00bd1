"""Tokens' log-probabilities in OpenAI's format, `choices[].logprobs`.

Source: OpenAI API reference, chat completions.
"""

from collections.abc import Sequence
from typing import Any

from tinybrain.chat import TokenLogprob

Json = dict[str, Any]


def written(tokens: Sequence[TokenLogprob]) -> Json | None:
    """The object of one choice, or of its part in a chunk; None where no token was told."""
    if not tokens:
        return None
    content = [
        _entry(token.raw, token.logprob)
        | {"top_logprobs": [_entry(raw, logprob) for raw, logprob in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(raw: bytes, logprob: float) -> Json:
    # Bytes tell what the text cannot: that a token ends inside a character, or is a special one.
    return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw) or None}
