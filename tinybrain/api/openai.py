"""OpenAI's chat completions format: requests in, completions and chunks out.

What TinyBrain adds stands under the one key `x_tinybrain`.
Source: OpenAI API reference, chat completions.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinybrain.api.bounds import MAX_CHOICES, MAX_TOKENS, check_messages, parse_body
from tinybrain.api.choices import Choice
from tinybrain.api.logprobs import written
from tinybrain.api.requests import ChatRequest
from tinybrain.chat import Message, Sampling, TokenLogprob
from tinybrain.config import Settings
from tinybrain.errors import InvalidRequest, ModelNotFound
from tinybrain.routing.cascade import Policy
from tinybrain.routing.events import Completed

Json = dict[str, Any]
StopString = Annotated[str, Field(min_length=1, max_length=100)]
TokenId = Annotated[int, Field(ge=0)]
Bias = Annotated[float, Field(ge=-100, le=100)]
AUTO_MODEL = "tinybrain"
LOCAL_MODEL = "tinychat"


class _TextPart(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]

    def message(self) -> Message:
        text = (
            self.content
            if isinstance(self.content, str)
            else "".join(part.text for part in self.content)
        )
        return Message("system" if self.role == "developer" else self.role, text)


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _ResponseFormat(BaseModel):
    type: str


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    messages: list[_Message]
    model: str = AUTO_MODEL
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=0, le=200)
    top_p: float | None = Field(None, ge=0.001, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63 - MAX_CHOICES)  # each choice's is one more
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    logit_bias: dict[TokenId, Bias] | None = Field(None, max_length=300)
    tools: list[Any] | None = Field(None, max_length=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: _ResponseFormat | None = None


def model_modes(settings: Settings) -> dict[str, Policy]:
    """The models that are sold, and how each answers."""
    return {
        AUTO_MODEL: "auto",
        LOCAL_MODEL: "local",
        settings.upstream_model: "upstream",
    }


def parse_request(body: bytes, settings: Settings) -> ChatRequest:
    """Read the body of POST /v1/chat/completions.

    Raises:
        InvalidRequest: A field is missing, out of its bounds or not supported.
        ModelNotFound: No model of that name is sold.
    """
    parsed = parse_body(_Body, body)
    modes = model_modes(settings)
    if parsed.model not in modes:
        raise ModelNotFound(
            f"The model {parsed.model[:100]!r} is not sold here. Choose one of: "
            f"{', '.join(modes)}.",
            param="model",
        )
    _refuse_unsupported(parsed)
    messages = [message.message() for message in parsed.messages]
    check_messages(messages)
    sampling = _sampling(parsed)
    choices = parsed.n or 1
    if choices * sampling.max_tokens > MAX_TOKENS:
        raise InvalidRequest(
            f"All choices together have at most {MAX_TOKENS} tokens: of {choices} each has at most "
            f"{MAX_TOKENS // choices}. Set a lower max_tokens or n.",
            param="max_tokens",
        )
    greedy = parsed.temperature is None and choices == 1
    return ChatRequest(
        messages=messages,
        sampling=sampling,
        # Greedy unless asked otherwise, or for several choices, which would all be the same: the
        # gate's confidence was measured on greedy answers.
        local_sampling=replace(sampling, temperature=0.0) if greedy else sampling,
        model=parsed.model,
        mode=modes[parsed.model],
        stream=parsed.stream,
        include_usage=bool(parsed.stream_options and parsed.stream_options.include_usage),
        choices=choices,
    )


def _sampling(parsed: _Body) -> Sampling:
    default = Sampling()
    stop = [parsed.stop] if isinstance(parsed.stop, str) else parsed.stop or []
    return Sampling(
        max_tokens=parsed.max_completion_tokens or parsed.max_tokens or default.max_tokens,
        temperature=default.temperature if parsed.temperature is None else parsed.temperature,
        top_k=default.top_k if parsed.top_k is None else parsed.top_k,
        top_p=default.top_p if parsed.top_p is None else parsed.top_p,
        min_p=default.min_p if parsed.min_p is None else parsed.min_p,
        repetition_penalty=parsed.repetition_penalty or default.repetition_penalty,
        seed=parsed.seed,
        stop=tuple(stop),
        logit_bias=tuple((parsed.logit_bias or {}).items()),
        logprobs=bool(parsed.logprobs),
        top_logprobs=parsed.top_logprobs or 0,
    )


def _refuse_unsupported(parsed: _Body) -> None:
    if parsed.top_logprobs and not parsed.logprobs:
        raise InvalidRequest(
            "top_logprobs are told with logprobs. Set logprobs to true.", param="top_logprobs"
        )
    if parsed.response_format and parsed.response_format.type != "text":
        raise InvalidRequest(
            "Only plain text is answered. Leave response_format out.", param="response_format"
        )


class Completion:
    """Writes one answer in OpenAI's format; id and time are the same in every chunk.

    `model` is told until it is known who really answers, and where the choices are of several.
    """

    def __init__(self, answer_id: str, model: str) -> None:
        self._id = f"chatcmpl-{answer_id}"
        self._created = int(time.time())
        self._model = model
        self._models: dict[int, str] = {}
        self._writers: set[str] = set()

    def answered_by(self, choice: int, model: str) -> None:
        """Note which model really answers from here on."""
        self._models[choice] = model
        self._writers.add(model)

    def chunk(
        self,
        choice: int,
        delta: Json,
        *,
        logprobs: Sequence[TokenLogprob] = (),
        finish: str | None = None,
        extra: Json | None = None,
    ) -> Json:
        """One chunk of a stream: a piece of one choice."""
        chunk = {
            **self._head("chat.completion.chunk", self._models.get(choice, self._model)),
            "choices": [_choice(choice, {"delta": delta}, logprobs, finish)],
        }
        return chunk if extra is None else chunk | {"x_tinybrain": extra}

    def ends(self, completed: Mapping[int, Completed], extra: Json, *, usage: bool) -> list[Json]:
        """The last chunks of a stream: how each choice ended, and the usage if asked for."""
        ordered = sorted(completed.items())
        chunks = [self.chunk(choice, {}, finish=end.finish_reason) for choice, end in ordered]
        chunks[-1]["x_tinybrain"] = extra
        if usage:
            head = self._head("chat.completion.chunk", self._common_model())
            chunks.append({**head, "choices": [], "usage": _usage([end for _, end in ordered])})
        return chunks

    def whole(self, choices: Sequence[Choice], extra: Json) -> Json:
        """The body of an answer that is not streamed."""
        for index, choice in enumerate(choices):
            for made in choice.decisions:
                self.answered_by(index, made.model)
        return {
            **self._head("chat.completion", self._common_model()),
            "choices": [_whole_choice(*numbered) for numbered in enumerate(choices)],
            "usage": _usage([choice.completed for choice in choices if choice.completed]),
            "x_tinybrain": extra,
        }

    def _common_model(self) -> str:
        return next(iter(self._writers)) if len(self._writers) == 1 else self._model

    def _head(self, kind: str, model: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": model}


def _whole_choice(index: int, choice: Choice) -> Json:
    message: Json = {"role": "assistant", "content": choice.content}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    finish = choice.completed.finish_reason if choice.completed else None
    return _choice(index, {"message": message}, choice.logprobs, finish)


def _choice(index: int, said: Json, logprobs: Sequence[TokenLogprob], finish: str | None) -> Json:
    return {"index": index, **said, "logprobs": written(logprobs), "finish_reason": finish}


def _usage(completed: Sequence[Completed]) -> Json:
    """The tokens of all choices; their prompt is one."""
    prompt_tokens = completed[0].prompt_tokens
    completion_tokens = sum(end.completion_tokens for end in completed)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
