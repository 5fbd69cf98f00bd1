"""A larger model behind any OpenAI-compatible URL.

Does not know how a call is paid: the owner of the HTTP client injects a transport that pays. That
transport finds the answer's id in the request's extension `tinybrain_answer_id`, and tells the
cost (atomic USDC) and the transaction in the response's `tinybrain_cost` and
`tinybrain_transaction`. Nothing is retried here, because a call may have been paid.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
from pydantic import SecretStr

from tinybrain.chat import Message, Sampling, UpstreamEvent
from tinybrain.errors import UpstreamError
from tinybrain.upstreams.completion import DONE, CompletionReader, excerpt
from tinybrain.upstreams.sse import SseDecoder
from tinybrain.usdc import Usdc

TIMEOUT = httpx.Timeout(60, connect=5)
MAX_ANSWER_BYTES = 16_000_000
MAX_ERROR_BYTES = 2_000
DRAIN_TIMEOUT_S = 0.5


class OpenAICompatible:
    """An `Upstream` that speaks `POST {base_url}/chat/completions` with streaming.

    Args:
        client: Sends the requests; stays the caller's to close.
        base_url: Up to and including the version, without a trailing slash.
        model: The id sent in the body.
        name: The provider, as shown to callers.
        max_tokens: Upper bound of an answer, whatever a caller asks for.
        api_key: Sent as a bearer token where given.
        system_message: Sent first where the conversation has none of its own.
        reports_usage: The provider accepts `stream_options`.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        base_url: str,
        model: str,
        name: str,
        max_tokens: int,
        api_key: SecretStr | None = None,
        system_message: str | None = None,
        reports_usage: bool = True,
    ) -> None:
        self.name = name
        self.model = model
        self._client = client
        self._url = f"{base_url}/chat/completions"
        self._max_tokens = max_tokens
        self._api_key = api_key
        self._system_message = system_message
        self._reports_usage = reports_usage

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, *, answer_id: str
    ) -> AsyncGenerator[UpstreamEvent, None]:
        """Yield Thoughts and Texts as they arrive, then one Finished with the cost.

        Raises:
            UpstreamError: The model could not be reached or understood, or its answer was cut
                off; also whatever the client's transport raises.
        """
        reader = CompletionReader()
        request = self._client.stream(
            "POST",
            self._url,
            json=self._body(messages, sampling),
            headers=self._headers(),
            timeout=TIMEOUT,
            extensions={"tinybrain_answer_id": answer_id},
        )
        try:
            async with request as response:
                await self._check_status(response)
                async with aclosing(_payloads(response)) as payloads:
                    async for data in payloads:
                        for event in reader.read(data):
                            yield event
        except httpx.HTTPError as error:
            # A connection that breaks after the end of the answer takes nothing from it.
            if not reader.finished:
                raise UpstreamError(f"{self.name} failed: {type(error).__name__}.") from error
        for event in reader.close():
            yield event
        yield reader.end(
            cost=Usdc(response.extensions.get("tinybrain_cost", 0)),
            transaction=response.extensions.get("tinybrain_transaction"),
        )

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if self._system_message and not any(message.role == "system" for message in messages):
            turns.insert(0, {"role": "system", "content": self._system_message})
        body: dict[str, Any] = {
            "model": self.model,
            "messages": turns,
            "stream": True,
            "max_tokens": min(sampling.max_tokens, self._max_tokens),
            "temperature": sampling.temperature,
        }
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self._reports_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def _headers(self) -> dict[str, str]:
        if self._api_key is None:
            return {}
        return {"Authorization": f"Bearer {self._api_key.get_secret_value()}"}

    async def _check_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        said = bytearray()
        async for chunk in response.aiter_bytes():
            said += chunk
            if len(said) >= MAX_ERROR_BYTES:
                break
        text = said[:MAX_ERROR_BYTES].decode(errors="replace")
        if self._api_key:
            text = text.replace(self._api_key.get_secret_value(), "[secret]")
        raise UpstreamError(f"{self.name} answered {response.status_code}: {excerpt(text)}")


class _WholeBody:
    """Stands in for the decoder where the answer is not streamed: one JSON object."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, chunk: bytes) -> Iterator[str]:
        self._body += chunk
        return iter(())

    def close(self) -> Iterator[str]:
        yield self._body.decode(errors="replace")


async def _payloads(response: httpx.Response) -> AsyncGenerator[str, None]:
    is_json = response.headers.get("content-type", "").startswith("application/json")
    decoder = _WholeBody() if is_json else SseDecoder()
    received = 0
    chunks = response.aiter_bytes()
    async for chunk in chunks:
        received += len(chunk)
        if received > MAX_ANSWER_BYTES:
            raise UpstreamError(f"The upstream sent over {MAX_ANSWER_BYTES} bytes.")
        for data in decoder.feed(chunk):
            yield data
            if data == DONE:
                await _drain(chunks)
                return
    for data in decoder.close():
        yield data


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end of the response, so that its connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for _ in chunks:
                pass
