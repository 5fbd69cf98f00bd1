"""OpenAI's chat completions format: requests in, completions and chunks out.

What TinyBrain adds stands under the one key `x_tinybrain`.
Source: OpenAI API reference, chat completions.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinybrain.api.bounds import check_messages, parse_body
from tinybrain.api.logprobs import written
from tinybrain.api.requests import ChatRequest
from tinybrain.chat import Message, Sampling, TokenLogprob
from tinybrain.config import Settings
from tinybrain.errors import InvalidRequest, ModelNotFound
from tinybrain.routing.cascade import Policy

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
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    n: int | None = Field(None, ge=1)
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
    return ChatRequest(
        messages=messages,
        sampling=sampling,
        # Greedy unless asked otherwise: the gate's confidence was measured on greedy answers.
        local_sampling=sampling if parsed.temperature else replace(sampling, temperature=0.0),
        model=parsed.model,
        mode=modes[parsed.model],
        stream=parsed.stream,
        include_usage=bool(parsed.stream_options and parsed.stream_options.include_usage),
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
    if parsed.n is not None and parsed.n > 1:
        raise InvalidRequest(
            "One payment buys one answer. Leave n out, and send a request for each.", param="n"
        )
    if parsed.top_logprobs and not parsed.logprobs:
        raise InvalidRequest(
            "top_logprobs are told with logprobs. Set logprobs to true.", param="top_logprobs"
        )
    if parsed.response_format and parsed.response_format.type != "text":
        raise InvalidRequest(
            "Only plain text is answered. Leave response_format out.", param="response_format"
        )


class Completion:
    """Writes one answer in OpenAI's format; id and time are the same in every chunk."""

    def __init__(self, answer_id: str, model: str) -> None:
        self._id = f"chatcmpl-{answer_id}"
        self._created = int(time.time())
        self._model = model

    def answered_by(self, model: str) -> None:
        """Note which model really answers."""
        self._model = model

    def chunk(
        self,
        delta: Json,
        *,
        logprobs: Sequence[TokenLogprob] = (),
        finish: str | None = None,
        extra: Json | None = None,
    ) -> Json:
        """One chunk of a stream."""
        return self._chunk([_choice({"delta": delta}, logprobs, finish)], extra)

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> Json:
        """The chunk that `stream_options.include_usage` asks for."""
        return self._chunk([], None) | {"usage": _usage(prompt_tokens, completion_tokens)}

    def whole(
        self,
        *,
        content: str,
        reasoning: str,
        logprobs: Sequence[TokenLogprob],
        finish: str,
        prompt_tokens: int,
        completion_tokens: int,
        extra: Json,
    ) -> Json:
        """The body of an answer that is not streamed."""
        message: Json = {"role": "assistant", "content": content}
        if reasoning:
            message["reasoning_content"] = reasoning
        return {
            **self._head("chat.completion"),
            "choices": [_choice({"message": message}, logprobs, finish)],
            "usage": _usage(prompt_tokens, completion_tokens),
            "x_tinybrain": extra,
        }

    def _chunk(self, choices: list[Json], extra: Json | None) -> Json:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices}
        return chunk if extra is None else chunk | {"x_tinybrain": extra}

    def _head(self, kind: str) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
        }


def _choice(said: Json, logprobs: Sequence[TokenLogprob], finish: str | None) -> Json:
    return {"index": 0, **said, "logprobs": written(logprobs), "finish_reason": finish}


def _usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
