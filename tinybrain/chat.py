"""What callers, the small model and the larger models exchange: messages in, events out.

Nothing here knows HTTP, tensors or money paths; every layer above speaks these types.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tinybrain.usdc import Usdc

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_k` 0 considers every token.

    `top_p` keeps the likeliest tokens that have this share together, `min_p` those at least this
    share as likely as the likeliest; `repetition_penalty` above 1 makes what was said less likely.
    Larger models are told `top_p`; not all of them know the other two.
    `logit_bias` are ids of the small model's tokens with what is added to their logits. `logprobs`
    wants each token told with its probability, and with the `top_logprobs` likeliest in its place.
    """

    max_tokens: int = 512
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The local model has read the prompt; comes before its first token.

    `perplexity` is TinyChat's: exp of the mean negative log-likelihood of prompt tokens 2..T,
    special tokens included; None for a prompt of one token. `user_perplexity` is of the tokens
    of the last user message alone.
    """

    perplexity: float | None
    prompt_tokens: int
    gpu: int = 0
    user_perplexity: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that text is made of, with its natural log-probability at temperature 1.

    `raw` are its bytes, which may end inside a character. `top` are the likeliest tokens in its
    place, bytes and log-probability; a special token has no bytes.
    """

    raw: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token with the model's certainty (natural logs, at temperature 1).

    `text` is what became printable: empty while a UTF-8 character is incomplete, or while the
    text could still turn into a stop string. `logprobs` are of the tokens that `text` is made of,
    if they were asked for: each comes with the first of its characters. A `forced` token is not
    the model's own choice but, for example, what a calculator told it. `entropy` and `margin` are
    None where a model tells log-probabilities alone.
    """

    text: str
    logprob: float
    entropy: float | None
    margin: float | None
    logprobs: tuple[TokenLogprob, ...] = ()
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a larger model's answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of a larger model's reasoning, kept apart from its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an answer. `text` is what the stop-string search still held back.

    `cost` is what was paid for it, `transaction` the hash where the seller told one; `logprobs`
    are as a Token's.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    text: str = ""
    cost: Usdc = Usdc(0)
    transaction: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


LocalEvent = Prefilled | Token | Finished
UpstreamEvent = Text | Thought | Finished


class LocalModel(Protocol):
    """The small model. Closing the iterator early (`aclose`) ends the work behind it."""

    name: str

    def generate(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncIterator[LocalEvent]:
        """Yield one Prefilled, then Tokens, then one Finished.

        Raises:
            LocalModelError: The model failed.
            InvalidRequest: The conversation cannot be rendered or does not fit the context.
        """
        ...


class Upstream(Protocol):
    """A larger model that is bought. Closing the iterator early ends the call."""

    name: str

    def generate(
        self, messages: Sequence[Message], sampling: Sampling, *, answer_id: str
    ) -> AsyncIterator[UpstreamEvent]:
        """Yield Thoughts and Texts as they arrive, then one Finished with the cost.

        `answer_id` ties the purchase to the answer it is for.

        Raises:
            UpstreamError: The model could not be reached, paid or understood.
        """
        ...
