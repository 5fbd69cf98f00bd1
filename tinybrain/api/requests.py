"""A caller's question after parsing, whatever wire format it came in."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinybrain.chat import Message, Sampling
from tinybrain.routing.cascade import Policy


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question. `model` is the name the caller used; TinyChat may sample differently."""

    messages: Sequence[Message]
    sampling: Sampling
    local_sampling: Sampling
    model: str
    mode: Policy
    stream: bool
    include_usage: bool = False
