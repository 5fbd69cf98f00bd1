"""OpenAI's chat completions as the devnet's seller speaks them: what is understood, what is said.

Nothing here knows payments or the model behind.
"""

import json
import time
import uuid
from typing import Any

from pydantic import BaseModel, Field

from tinybrain.chat import Finished, Role, Sampling, Text
from tinybrain.devnet.smollm2 import NAME

MAX_TOKENS = 1024


class Turn(BaseModel):
    """One message of the conversation."""

    role: Role
    content: str


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The part of OpenAI's chat completion request that is understood; the rest is ignored."""

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=256)
    max_tokens: int = Field(512, ge=1, le=MAX_TOKENS)
    temperature: float = Field(0.7, ge=0, le=2)
    seed: int | None = None
    stop: str | list[str] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    def sampling(self) -> Sampling:
        """How to choose tokens."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return Sampling(self.max_tokens, self.temperature, seed=self.seed, stop=stop)


class Completion:
    """One answer, in the two shapes of OpenAI's wire format."""

    def __init__(self, request: ChatRequest) -> None:
        self._include_usage = request.stream_options.include_usage
        self._common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": NAME,  # what really answered, whatever it was asked as
        }

    def whole(self, text: str, end: Finished) -> bytes:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": end.reason}
        fields = {"object": "chat.completion", "choices": [choice], "usage": _usage(end)}
        return json.dumps({**self._common, **fields}).encode()

    def event(self, event: Text | Finished) -> bytes:
        """The server-sent events of one step."""
        if isinstance(event, Text):
            return self._chunk({"content": event.text}, None)
        usage = self._sse({"choices": [], "usage": _usage(event)}) if self._include_usage else b""
        return self._chunk({}, event.reason) + usage + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], reason: str | None) -> bytes:
        return self._sse({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _sse(self, fields: dict[str, Any]) -> bytes:
        chunk = {**self._common, "object": "chat.completion.chunk", **fields}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _usage(end: Finished) -> dict[str, int]:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }
