"""TinyChat, the small model: messages in, text and the model's own doubt out, token by token.

Ties the engine, which knows only token ids, to the tokenizer, and the engine's thread to the
event loops that ask.
"""

import asyncio
import queue
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from tinybrain.chat import (
    Finished,
    LocalEvent,
    Message,
    Prefilled,
    Sampling,
    Token,
    TokenLogprob,
)
from tinybrain.engine.detokenizer import Detokenizer
from tinybrain.engine.engine import Engine
from tinybrain.engine.gpt import count_parameters
from tinybrain.engine.model import Model
from tinybrain.engine.rendering import fit, render
from tinybrain.engine.request import (
    Completed,
    EngineEvent,
    Failed,
    PromptRead,
    Request,
    SampledToken,
)
from tinybrain.engine.tokenizer import Tokenizer
from tinybrain.engine.tool_use import ToolUse
from tinybrain.errors import InvalidRequest, LocalModelError


class TinyChat:
    """A `LocalModel` over one engine."""

    name = "tinychat"

    def __init__(
        self, model: Model, tokenizer: Tokenizer, *, checkpoint_hash: str, slots: int
    ) -> None:
        self.context_length = model.config.sequence_len
        self.parameters = count_parameters(model.config, model.variant)
        self.variant = model.variant.name
        self.checkpoint_hash = checkpoint_hash
        self.device = model.device.type
        self.precision = model.precision
        self.engine = Engine(model, slots=slots)
        self._tokenizer = tokenizer
        self._stop_tokens = frozenset(tokenizer.special(name) for name in ("assistant_end", "bos"))

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[LocalEvent, None]:
        """Yield one Prefilled, a Token for each sampled token, and one Finished.

        The stop token is a Token too, without text: its certainty counts. Likewise those of an
        expression for the calculator; its value is text. A conversation too long for the context
        loses its oldest turns; an answer ends with "length" where the context does.

        Raises:
            InvalidRequest: The conversation cannot be rendered, or a biased token does not exist.
            Busy: Too many requests wait.
            LocalModelError: The model failed.
        """
        prompt = self._prompt(messages, sampling.max_tokens)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[EngineEvent] = asyncio.Queue()
        request = self._request(
            prompt, sampling, lambda event: loop.call_soon_threadsafe(events.put_nowait, event)
        )
        text, tools = Detokenizer(sampling.stop), ToolUse(self._tokenizer)
        logprobs = _Logprobs(self._tokenizer, text)
        produced = 0
        self.engine.submit(request)
        try:
            while True:
                match await events.get():
                    case PromptRead(perplexity, user_perplexity):
                        yield Prefilled(perplexity, len(prompt), user_perplexity=user_perplexity)
                    case SampledToken(token, logprob, entropy, margin) as sampled:
                        produced += 1
                        tools.push(token)
                        raw = b"" if tools.in_expression else self._tokenizer.token_bytes(token)
                        if raw and sampling.logprobs:
                            logprobs.push(raw, sampled)
                        piece, due = text.push(raw), logprobs.due()
                        yield Token(piece, logprob, entropy, margin, due, sampled.forced)
                        if text.stopped:
                            yield Finished("stop", len(prompt), produced)
                            return
                    case Completed(reason):
                        rest = text.finish()
                        yield Finished(reason, len(prompt), produced, rest, logprobs=logprobs.due())
                        return
                    case Failed(error):
                        raise LocalModelError("TinyChat failed while answering.") from error
        finally:
            self.engine.abort(request)

    def warm_up(self) -> None:
        """Compute one token, so that the first caller waits for no page fault or kernel load.

        Raises:
            LocalModelError: The model failed.
        """
        events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self.engine.submit(Request([self._tokenizer.special("bos")], events.put, max_tokens=1))
        while not isinstance(event := events.get(), Completed):
            if isinstance(event, Failed):
                raise LocalModelError("TinyChat failed while warming up.") from event.error

    def close(self) -> None:
        """End the engine; what is unfinished fails."""
        self.engine.close()

    def _request(
        self, prompt: list[int], sampling: Sampling, emit: Callable[[EngineEvent], object]
    ) -> Request:
        self._check_bias(sampling)
        return Request(
            prompt,
            emit,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=sampling.logit_bias,
            top_logprobs=sampling.top_logprobs if sampling.logprobs else 0,
            seed=sampling.seed,
            stop_tokens=self._stop_tokens,
            span=self._last_user_span(prompt),
            follow=ToolUse(self._tokenizer).push,
        )

    def _check_bias(self, sampling: Sampling) -> None:
        size = self._tokenizer.vocab_size
        for token, _ in sampling.logit_bias:
            if not 0 <= token < size:
                raise InvalidRequest(
                    f"logit_bias names token {token}, but TinyChat's tokens are 0 to {size - 1}. "
                    "Take the ids of its own tokenizer.",
                    param="logit_bias",
                )

    def _last_user_span(self, prompt: list[int]) -> tuple[int, int]:
        """Where the last user message stands, [begin, end), without the marks around it."""
        start, end = (self._tokenizer.special(name) for name in ("user_start", "user_end"))
        begin = len(prompt) - prompt[::-1].index(start)
        return begin, prompt.index(end, begin)

    def _prompt(self, messages: Sequence[Message], max_tokens: int) -> list[int]:
        # However long an answer is asked for, half of the context is the conversation's.
        answer = min(max_tokens, self.context_length // 2)
        ids = render(self._tokenizer, messages)
        return fit(self._tokenizer, ids, self.context_length - answer)


class _Logprobs:
    """The tokens of an answer that wait until some of their text is given out."""

    def __init__(self, tokenizer: Tokenizer, text: Detokenizer) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def push(self, raw: bytes, sampled: SampledToken) -> None:
        """Take in a token before its text is."""
        top = tuple((self._tokenizer.token_bytes(i), logprob) for i, logprob in sampled.top)
        self._waiting.append((self._text.decoded, TokenLogprob(raw, sampled.logprob, top)))

    def due(self) -> tuple[TokenLogprob, ...]:
        """Those whose first character was given out since the last time."""
        due = []
        while self._waiting and self._waiting[0][0] < self._text.given:
            due.append(self._waiting.popleft()[1])
        return tuple(due)
