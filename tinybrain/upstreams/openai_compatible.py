"""A larger model behind any OpenAI-compatible URL.

Does not know how a call is paid: the owner of the HTTP client injects a transport that pays. That
transport finds the answer's id in the request's extension `tinybrain_answer_id`, and tells the
cost (atomic USDC) and the transaction in the response's `tinybrain_cost` and
`tinybrain_transaction`. Nothing is retried here, because a call may have been paid.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx
from pydantic import SecretStr

from tinybrain.chat import Message, Sampling, UpstreamEvent
from tinybrain.errors import UpstreamError
from tinybrain.upstreams.completion import CompletionReader
from tinybrain.upstreams.wire import bearer, payloads, read_error, request_body
from tinybrain.usdc import Usdc

TIMEOUT = httpx.Timeout(60, connect=5)


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
        reader = CompletionReader(self._api_key)
        request = self._client.stream(
            "POST",
            self._url,
            json=self._body(messages, sampling),
            headers=bearer(self._api_key),
            timeout=TIMEOUT,
            extensions={"tinybrain_answer_id": answer_id},
        )
        try:
            async with request as response:
                await self._check_status(response)
                async with aclosing(payloads(response)) as answer:
                    async for data in answer:
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
        if self._system_message and not any(message.role == "system" for message in messages):
            messages = [Message("system", self._system_message), *messages]
        body = request_body(self.model, messages, sampling)
        body["max_tokens"] = min(sampling.max_tokens, self._max_tokens)
        if self._reports_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    async def _check_status(self, response: httpx.Response) -> None:
        if not response.is_success:
            said = await read_error(response, self._api_key)
            raise UpstreamError(f"{self.name} answered {response.status_code}: {said}")
