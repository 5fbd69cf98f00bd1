"""A caller's question after parsing, whatever wire format it came in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinybrain.chat import Message, Sampling
from tinybrain.routing.cascade import Policy


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question. `model` is the name the caller used; TinyChat may sample differently.

    `choices` is how many answers are wanted of it.
    """

    messages: Sequence[Message]
    sampling: Sampling
    local_sampling: Sampling
    model: str
    mode: Policy
    stream: bool
    include_usage: bool = False
    choices: int = 1


def seeded(sampling: Sampling, choice: int) -> Sampling:
    """How one of several choices is sampled: a given seed makes each another one, repeatably."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + choice)
