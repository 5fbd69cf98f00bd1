"""What the engine is asked, and what it tells: token ids and numbers, no text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinybrain.chat import FinishReason
from tinybrain.engine.sampler import SampledToken


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The prompt is in the cache; the first token follows."""

    perplexity: float | None


@dataclass(frozen=True, slots=True)
class Completed:
    """The last token was told: it was a stop token, or a limit is reached."""

    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended with an error; other requests may go on."""

    error: Exception


EngineEvent = PromptRead | SampledToken | Completed | Failed


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One completion to compute.

    `emit` gets a PromptRead, then SampledTokens (a stop token included), then one Completed; or
    a Failed at any time. It is called from the engine's thread and must not block.
    """

    prompt: Sequence[int]
    emit: Callable[[EngineEvent], object]
    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    seed: int | None = None
    stop_tokens: frozenset[int] = frozenset()
