"""What the engine is asked, and what it tells: token ids and numbers, no text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinybrain.chat import FinishReason


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The prompt is in the cache; the first token follows.

    `span_perplexity` is of the request's `span` alone; `reused` tokens were in the cache before.
    """

    perplexity: float | None
    span_perplexity: float | None = None
    reused: int = 0


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A chosen token, with figures of the model's raw distribution (temperature 1).

    `logprob` is the natural log of the chosen token's probability, `entropy` is in nats, `margin`
    is the probability of the likeliest token minus that of the second. `top` are the likeliest
    tokens with their `logprob`, as many as the request wants told. A `forced` token was not drawn:
    its figures say what the model thought of it.
    """

    id: int
    logprob: float
    entropy: float
    margin: float
    top: tuple[tuple[int, float], ...] = ()
    forced: bool = False


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
    `logit_bias` are ids with what is added to their logits before all else; `top_logprobs` is how
    many of the likeliest tokens are told with each that is chosen.
    `span` is where the last user message stands in the prompt, [begin, end) in tokens.
    `follow` is given each token of the answer in its turn, and gives those that must come next,
    whatever the model makes of them. They count towards `max_tokens`, and stop nothing.
    """

    prompt: Sequence[int]
    emit: Callable[[EngineEvent], object]
    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int = 0
    seed: int | None = None
    stop_tokens: frozenset[int] = frozenset()
    span: tuple[int, int] | None = None
    follow: Callable[[int], Sequence[int]] | None = None
