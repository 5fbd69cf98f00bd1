"""A request that is being answered, from its prompt to its last token.

Knows neither model nor cache: others compute what it goes on with.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from tinybrain.chat import FinishReason
from tinybrain.engine.drafts import Drafts
from tinybrain.engine.perplexity import perplexity
from tinybrain.engine.request import PromptRead, Request, SampledToken
from tinybrain.engine.sampler import Sampler
from tinybrain.engine.slots import Slot


@dataclass(slots=True, eq=False)
class Running:
    """A request that holds a cache slot; `computed` tokens of its prompt were not reused.

    `must_follow` are tokens that come next whatever the model says. Once there is a
    `finish_reason` or an `error`, nothing more is to be decoded.
    """

    request: Request
    slot: Slot
    sampler: Sampler
    tokens_left: int
    drafts: Drafts
    must_follow: deque[int] = field(default_factory=deque)
    computed: int = 0
    finish_reason: FinishReason | None = None
    error: Exception | None = None

    @property
    def is_reading(self) -> bool:
        """Whether no token has been chosen yet."""
        return len(self.slot.tokens) <= len(self.request.prompt)

    @property
    def prompt_read(self) -> PromptRead:
        """What there is to tell of a prompt that is read."""
        length, nll = len(self.request.prompt), self.slot.nll
        begin, end = self.request.span or (0, 0)
        return PromptRead(
            perplexity(nll[1:length]),
            span_perplexity=perplexity(nll[max(begin, 1) : end]),
            reused=length - self.computed,
        )

    def draft(self, most: int) -> list[int]:
        """Up to `most` tokens that must or may come next, no more than can."""
        most = min(most, self.tokens_left - 1)
        return list(islice(self.must_follow, most)) or self.drafts.propose(most)

    @property
    def forced(self) -> int | None:
        """The next token, if there is one that must be it."""
        return self.must_follow[0] if self.must_follow else None

    def take(self, token: SampledToken | FloatingPointError) -> SampledToken:
        """Go on with a token; the next decode puts it into the cache.

        Raises:
            FloatingPointError: There was none to be sampled.
        """
        if isinstance(token, FloatingPointError):
            raise token
        self.slot.extend([token.id], [-token.logprob])
        self.drafts.push(token.id)
        self.tokens_left -= 1
        if token.forced:
            self.must_follow.popleft()
        if self.request.follow:
            self.must_follow.extend(self.request.follow(token.id))
        if token.id in self.request.stop_tokens and not token.forced:
            self.finish_reason = "stop"
        elif self.tokens_left == 0:
            self.finish_reason = "length"
        return token

    def take_or_fail(self, token: SampledToken | FloatingPointError) -> list[SampledToken]:
        """As `take`; what fails leaves an `error`, so that others in the batch can go on."""
        try:
            return [self.take(token)]
        except Exception as error:  # noqa: BLE001  # told by whoever decodes
            self.error = error
            return []
