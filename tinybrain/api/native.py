"""TinyChat's own format: `{"perplexity"}` first, then `{"token", "gpu"}`, then `{"done"}`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinybrain.api.bounds import check_messages, parse_body
from tinybrain.api.openai import LOCAL_MODEL
from tinybrain.api.requests import ChatRequest
from tinybrain.chat import Message, Sampling


class _Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    messages: list[_Message]
    temperature: float = Field(0.8, ge=0, le=2)
    max_tokens: int = Field(512, ge=1, le=4096)
    top_k: int = Field(50, ge=0, le=200)


def parse_request(body: bytes) -> ChatRequest:
    """Read the body of POST /chat/completions; only TinyChat answers there.

    Raises:
        InvalidRequest: A field is missing or out of its bounds.
    """
    parsed = parse_body(_Body, body)
    messages = [Message(message.role, message.content) for message in parsed.messages]
    check_messages(messages)
    sampling = Sampling(
        max_tokens=parsed.max_tokens, temperature=parsed.temperature, top_k=parsed.top_k
    )
    return ChatRequest(
        messages=messages,
        sampling=sampling,
        local_sampling=sampling,
        model=LOCAL_MODEL,
        mode="local",
        stream=True,
    )


def perplexity_event(perplexity: float | None) -> dict[str, Any]:
    """The first event; TinyChat tells two decimals."""
    return {"perplexity": None if perplexity is None else round(perplexity, 2)}


def token_event(text: str, gpu: int) -> dict[str, Any]:
    """A piece of the answer and the device that made it."""
    return {"token": text, "gpu": gpu}


def done_event(extra: dict[str, Any]) -> dict[str, Any]:
    """The last event, with the receipt."""
    return {"done": True, "x_tinybrain": extra}
