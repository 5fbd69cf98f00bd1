"""A caller's question after parsing, whatever wire format it came in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinybrain.chat import Message, Sampling

Mode = Literal["auto", "local", "upstream"]
"""Who may answer: the cascade decides, only TinyChat, or only the larger model."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question. `model` is the name the caller used; TinyChat may sample differently."""

    messages: Sequence[Message]
    sampling: Sampling
    local_sampling: Sampling
    model: str
    mode: Mode
    stream: bool
    include_usage: bool = False
