"""What every caller of an OpenAI-compatible URL does alike: the request's body, the answer's data.

Knows HTTP and its bounds; not what the data of an answer means, nor who pays.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import httpx
from pydantic import SecretStr

from tinybrain.chat import Message, Sampling
from tinybrain.errors import UpstreamError
from tinybrain.upstreams.completion import DONE, excerpt
from tinybrain.upstreams.sse import SseDecoder

MAX_ANSWER_BYTES = 16_000_000
MAX_ERROR_BYTES = 2_000
DRAIN_TIMEOUT_S = 0.5


def request_body(model: str, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    """A streamed chat completion's request, with what every provider knows of `sampling`."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "stream": True,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return body


def bearer(api_key: SecretStr | None) -> dict[str, str]:
    """The headers that show the key."""
    return {} if api_key is None else {"Authorization": f"Bearer {api_key.get_secret_value()}"}


async def payloads(
    response: httpx.Response, *, timeout_s: float | None = None
) -> AsyncGenerator[str, None]:
    """Yield the data of each event as it arrives, or the body where it is one JSON object.

    Raises:
        UpstreamError: The answer or a line of it is too long, or still comes after `timeout_s`.
    """
    is_json = response.headers.get("content-type", "").startswith("application/json")
    decoder = _WholeBody() if is_json else SseDecoder()
    received, now = 0, asyncio.get_running_loop().time
    deadline = None if timeout_s is None else now() + timeout_s
    chunks = response.aiter_bytes()
    async for chunk in chunks:
        received += len(chunk)
        if received > MAX_ANSWER_BYTES:
            raise UpstreamError(f"The server sent over {MAX_ANSWER_BYTES} bytes.")
        if deadline is not None and now() > deadline:
            raise UpstreamError(f"The server's answer took over {timeout_s:g} s.")
        for data in decoder.feed(chunk):
            yield data
            if data == DONE:
                await _drain(chunks)
                return
    for data in decoder.close():
        yield data


async def read_error(response: httpx.Response, api_key: SecretStr | None) -> str:
    """The beginning of an error's body on one line, without the key."""
    said = bytearray()
    async for chunk in response.aiter_bytes():
        said += chunk
        if len(said) >= MAX_ERROR_BYTES:
            break
    return excerpt(said[:MAX_ERROR_BYTES].decode(errors="replace"), api_key)


class _WholeBody:
    """Stands in for the decoder where the answer is not streamed: one JSON object."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, chunk: bytes) -> Iterator[str]:
        self._body += chunk
        return iter(())

    def close(self) -> Iterator[str]:
        yield self._body.decode(errors="replace")


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end of the response, so that its connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for _ in chunks:
                pass
