"""Reads an OpenAI chat completion, chunk by chunk or whole, into events.

Lenient in what it does not need, strict in what it shows: text that is no text is an error.
Knows neither HTTP nor server-sent events.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, NonNegativeInt, SecretStr, ValidationError

from tinybrain.chat import Finished, FinishReason, Text, Thought
from tinybrain.errors import UpstreamError
from tinybrain.upstreams.think import ThinkSplitter
from tinybrain.usdc import Usdc

DONE = "[DONE]"
MAX_EXCERPT = 200


class _Piece(BaseModel):
    content: str | None = None
    # Providers differ in the name, and some use it for what is no text.
    reasoning_content: Any = None
    reasoning: Any = None


class _Choice(BaseModel):
    index: int = 0
    delta: _Piece | None = None
    message: _Piece | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt | None = None
    completion_tokens: NonNegativeInt | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class CompletionReader:
    """One answer on its way; `finished` once the provider said how it ended.

    Args:
        api_key: Left out of what the provider says of errors, never of its answer.
    """

    def __init__(self, api_key: SecretStr | None = None) -> None:
        self.finished = False
        self._api_key = api_key
        self._reason: FinishReason = "stop"
        self._usage = _Usage()
        self._deltas = 0
        self._splitter = ThinkSplitter()

    def read(self, data: str) -> Iterator[Text | Thought]:
        """Yield the text and reasoning of one chunk, or of a whole completion.

        Raises:
            UpstreamError: `data` is an error or no chat completion.
        """
        if data == DONE:
            self.finished = True
            return
        chunk = self._parse(data)
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            if choice.index == 0:
                yield from self._read_choice(choice)

    def close(self) -> Iterator[Text | Thought]:
        """Yield what was held back as a possible tag.

        Raises:
            UpstreamError: The answer was cut off.
        """
        if not self.finished:
            raise UpstreamError("The answer was truncated.", code="upstream_truncated")
        yield from self._splitter.close()

    def end(self, *, cost: Usdc, transaction: str | None, tokens: int | None = None) -> Finished:
        """The last event; without a usage report, `tokens` were counted, else the pieces are."""
        prompt, completion = self._usage.prompt_tokens, self._usage.completion_tokens
        counted = self._deltas if tokens is None else tokens
        return Finished(
            self._reason,
            prompt_tokens=prompt or 0,
            completion_tokens=counted if completion is None else completion,
            cost=cost,
            transaction=transaction,
        )

    def _parse(self, data: str) -> _Chunk:
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError:
            raise UpstreamError("The server sent what is no chat completion.") from None
        if chunk.error:
            said = excerpt(_message(chunk.error), self._api_key)
            raise UpstreamError(f"The server reports an error: {said}")
        return chunk

    def _read_choice(self, choice: _Choice) -> Iterator[Text | Thought]:
        piece = choice.delta or choice.message or _Piece()
        thought = piece.reasoning_content or piece.reasoning
        if thought and isinstance(thought, str):
            self._deltas += 1
            yield Thought(thought)
        if piece.content:
            self._deltas += 1
            yield from self._splitter.feed(piece.content)
        match choice.finish_reason:
            case "error":
                raise UpstreamError("The server gave up in the middle of its answer.")
            case str(reason) if reason:
                self.finished = True
                self._reason = "length" if reason == "length" else "stop"


def _message(error: object) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)


def excerpt(text: str, api_key: SecretStr | None = None) -> str:
    """The beginning of foreign text on one line, fit to be shown in an error: without the key."""
    if api_key is not None:
        text = text.replace(api_key.get_secret_value(), "[secret]")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_EXCERPT]
