"""A small model behind any OpenAI-compatible URL that tells its log-probabilities.

It takes TinyChat's place: the gate judges what it is sure of. What such an API does not tell stays
unknown: perplexities, entropies, and how long the prompt is before the answer has ended. The
log-probabilities must be those at temperature 1, whatever the request's, as llama.cpp's are.
Reasoning is neither shown nor measured: only the answer's tokens count.
"""

import hashlib
import math
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from tinybrain.chat import (
    Finished,
    LocalEvent,
    Message,
    Prefilled,
    Sampling,
    Text,
    Thought,
    Token,
)
from tinybrain.errors import Busy, InvalidRequest, LocalModelError, UpstreamError
from tinybrain.upstreams.completion import DONE, CompletionReader
from tinybrain.upstreams.told_logprobs import ToldToken, told_in
from tinybrain.upstreams.wire import bearer, payloads, read_error, request_body
from tinybrain.usdc import Usdc

TIMEOUT = httpx.Timeout(30, connect=5, pool=5)
LEAST_TOP_LOGPROBS = 2  # for the margin
MAX_IDENTITY = 200
BAD_REQUEST = (400, 413, 422)
NO_CAPACITY = (429, 503)
TOO_LONG = re.compile(r"context[ _](size|length|window)", re.IGNORECASE)
NO_LOGPROBS = (
    "It tells no log-probabilities, so nobody knows what it is sure of. It was asked with "
    "logprobs: true and top_logprobs: 2: switch these on where it is served, or choose a server "
    "that has them, such as llama.cpp or vLLM."
)
NEXT_STEP: Mapping[int, str] = {
    401: " Set TINYBRAIN_SMALL_MODEL_API_KEY to a key that it takes.",
    403: " Set TINYBRAIN_SMALL_MODEL_API_KEY to a key that it takes.",
    404: " Check TINYBRAIN_SMALL_MODEL_URL, which ends with the version, and the model's name.",
}


def identity(model: str, base_url: str) -> str:
    """What a calibration of this model is bound to: its name and a hash of where it is served.

    Anybody may read it, so it does not tell the address; a password in that does not count. It is
    as good as its owner's word: other weights served under the same name are not noticed.
    """
    url = urlsplit(base_url)
    address = f"{url.scheme}://{url.netloc.rpartition('@')[2].lower()}{url.path}"
    place = hashlib.sha256(address.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.:/@-]", "_", model)[: MAX_IDENTITY - len(place) - 1]
    return f"{name}@{place}"


class RemoteSmallModel:
    """A `LocalModel` that speaks `POST {base_url}/chat/completions` with log-probabilities.

    Args:
        client: Sends the requests; stays the caller's to close. How many it sends at once is how
            many answers are under way.
        base_url: Up to and including the version, without a trailing slash.
        model: The id sent in the body, and the name told to callers.
        api_key: Sent as a bearer token where given.
        timeout_s: The longest answer.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        base_url: str,
        model: str,
        api_key: SecretStr | None = None,
        timeout_s: float = 120,
    ) -> None:
        self.name = model
        self._client = client
        self._url = f"{base_url}/chat/completions"
        self._api_key = api_key
        self._timeout_s = timeout_s

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AsyncGenerator[LocalEvent, None]:
        """Yield one Prefilled when the answer begins, its Tokens, and one Finished.

        The prompt's length is 0 in Prefilled: it is told with the end. top_k, min_p and
        repetition_penalty are not sent, because not every server knows them.

        Raises:
            LocalModelError: The model could not be reached or understood, tells no
                log-probabilities, or its answer was cut off.
            Busy: It takes no more requests now.
            InvalidRequest: The conversation is too long for it.
        """
        reader = _Reader(sampling, self._api_key)
        with self._own_failures():
            try:
                async with self._request(messages, sampling) as response:
                    await self._check_status(response)
                    yield Prefilled(None, 0)
                    async with aclosing(payloads(response, timeout_s=self._timeout_s)) as answer:
                        async for data in answer:
                            for token in reader.read(data):
                                yield token
            except httpx.HTTPError:
                # A connection that breaks after the end of the answer takes nothing from it.
                if not reader.finished:
                    raise
            for token in reader.close():
                yield token
            yield reader.end()

    def _request(
        self, messages: Sequence[Message], sampling: Sampling
    ) -> AbstractAsyncContextManager[httpx.Response]:
        body = request_body(self.name, messages, sampling) | {
            "logprobs": True,
            "top_logprobs": max(LEAST_TOP_LOGPROBS, sampling.top_logprobs),
            "stream_options": {"include_usage": True},
        }
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
        return self._client.stream(
            "POST",
            self._url,
            json=body,
            headers=bearer(self._api_key),
            timeout=TIMEOUT,
            follow_redirects=False,
        )

    async def _check_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        status, said = response.status_code, await read_error(response, self._api_key)
        if status in BAD_REQUEST and TOO_LONG.search(said):
            raise InvalidRequest(
                f"The conversation is too long for {self.name}. Leave out the oldest turns.",
                code="context_length_exceeded",
                param="messages",
            )
        if status in NO_CAPACITY:
            raise Busy(f"{self.name} has no capacity now. Try again.")
        raise LocalModelError(f"{self.name} answered {status}: {said}{NEXT_STEP.get(status, '')}")

    @contextmanager
    def _own_failures(self) -> Iterator[None]:
        """Tell what went wrong below as this model's failure.

        Not chained: the cause's message may quote a header, with the key in it.
        """
        try:
            yield
        except httpx.PoolTimeout:
            raise Busy(f"{self.name} has no capacity now. Try again.") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise LocalModelError(f"{self.name} failed: {type(error).__name__}.") from None
        except UpstreamError as error:
            raise LocalModelError(f"{self.name} failed: {error.message}") from None


class _Reader:
    """One answer on its way: text and log-probabilities of its chunks become Tokens."""

    def __init__(self, sampling: Sampling, api_key: SecretStr | None) -> None:
        self._completion = CompletionReader(api_key)
        self._tell = sampling.top_logprobs if sampling.logprobs else None
        self._waiting: list[ToldToken] = []  # for text that they are part of
        self._told = 0

    @property
    def finished(self) -> bool:
        """Whether the server said how the answer ended."""
        return self._completion.finished

    def read(self, data: str) -> Iterator[Token]:
        """Yield the answer's tokens of one chunk.

        Raises:
            UpstreamError: It is no chat completion, or has text before any log-probability.
        """
        pieces = list(self._completion.read(data))
        if data != DONE:
            told = told_in(data)
            self._told += len(told)
            self._waiting += told
        yield from self._tokens(pieces)

    def close(self) -> Iterator[Token]:
        """Yield what was held back, and tokens without text, as one that ends the answer."""
        yield from self._tokens(list(self._completion.close()))
        yield from self._take("")

    def end(self) -> Finished:
        """The last event; without a usage report, tokens told are counted."""
        return self._completion.end(cost=Usdc(0), transaction=None, tokens=self._told)

    def _tokens(self, pieces: Sequence[Text | Thought]) -> Iterator[Token]:
        text = "".join(piece.text for piece in pieces if isinstance(piece, Text))
        if text:
            yield from self._take(text)
        elif pieces:
            self._waiting.clear()  # reasoning

    def _take(self, text: str) -> Iterator[Token]:
        """What waits, as Tokens: the first has all the text and what callers are told of it."""
        waiting, self._waiting = self._waiting, []
        if text and not waiting:
            if not self._told:
                raise UpstreamError(NO_LOGPROBS)
            # Text out of nowhere is the deepest doubt: what a NaN stands for in signals.
            yield Token(text, math.nan, None, None)
        due = () if self._tell is None else tuple(t.with_top(self._tell) for t in waiting)
        for told in waiting:
            yield Token(text, told.logprob, None, told.margin, due)
            text, due = "", ()
